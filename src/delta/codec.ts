/** The codecs and their numbers on the wire (docs/delta-format.md). */

/** In the order of their numbers. */
export const codecNames = ['page', 'line', 'xor-rle', 'masked'] as const

export type CodecName = (typeof codecNames)[number]

export const codecNumbers: Readonly<Record<CodecName, number>> = {
  page: 0,
  line: 1,
  'xor-rle': 2,
  masked: 3,
}
