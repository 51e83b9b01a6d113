/** How a protection sends: what is left out, what is compressed, what is sent early. Both hosts know the settings. */
import { type Static, Type } from '#typebox'
import { type CodecName, grains } from '../delta/capture.ts'
import { reduceParts, shareBlockBytes } from '../delta/reduce.ts'
import { compressChoices } from '../delta/reduction-choice.ts'
import { cacheShadow, fullShadow, hashShadow, type Shadow } from '../delta/shadow.ts'
import { SubpageError } from '../errors.ts'
import { speculateChoices } from './settled-pages.ts'

/**
 * When the standby acknowledges a checkpoint. `memory`: it has all of it. `disk`: the writes to disks are on its stable storage, so
 * that its disks are those of a checkpoint after a loss of power, too.
 */
export const durabilities = ['memory', 'disk'] as const
export type Durability = (typeof durabilities)[number]

/** Members of the settings of a protection; what is absent is not done. */
export const sendingForm = {
  reduce: Type.Optional(Type.Array(Type.Enum([...reduceParts]), { maxItems: reduceParts.length })),
  /** Of sharing. */
  blockBytes: Type.Optional(Type.Enum([...shareBlockBytes])),
  compress: Type.Optional(Type.Enum([...compressChoices])),
  speculate: Type.Optional(Type.Enum([...speculateChoices])),
  /** What the primary remembers of the standby's memory; absent: `full`. */
  shadow: Type.Optional(
    Type.Union([
      Type.Literal('full'),
      Type.Object({ cacheBytes: Type.Integer({ minimum: 4096 }) }, { additionalProperties: false }),
      Type.Literal('hash'),
    ]),
  ),
  /** Size of the blocks in which changes are told apart. */
  grainBytes: Type.Optional(Type.Enum([...grains])),
}

const Sending = Type.Object(sendingForm)
export type Sending = Static<typeof Sending>

/** Whether deltas go through a reducer at all. */
export const reduces = ({ reduce = [], compress = 'off' }: Sending) => reduce.length > 0 || compress !== 'off'

/** @throws SubpageError BAD_ARGUMENT when a codec goes below every block; NO_SPACE */
export function makeShadow(
  pages: number,
  codec: CodecName,
  { shadow = 'full', grainBytes }: Sending,
): Shadow {
  if (shadow === 'hash') return hashShadow(pages, grainBytes)
  if (grainBytes !== undefined && codec !== 'line')
    throw new SubpageError(
      'BAD_ARGUMENT',
      `a grain of ${grainBytes} bytes is for the codec line and for hashes: ${codec} has one of its own`,
    )
  return shadow === 'full' ? fullShadow(pages, grainBytes) : cacheShadow(pages, shadow.cacheBytes, grainBytes)
}
