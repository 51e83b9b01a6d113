/** How a protection sends: what is left out, what is compressed, what is sent early. Both hosts know the settings. */
import { type Static, Type } from 'typebox'
import { compressChoices } from '../delta/compression-choice.ts'
import { reduceParts, shareBlockBytes } from '../delta/reduce.ts'
import { speculateChoices } from './settled-pages.ts'

/** Members of the settings of a protection; what is absent is not done. */
export const sendingForm = {
  reduce: Type.Optional(Type.Array(Type.Enum([...reduceParts]), { maxItems: reduceParts.length })),
  /** Of sharing. */
  blockBytes: Type.Optional(Type.Enum([...shareBlockBytes])),
  compress: Type.Optional(Type.Enum([...compressChoices])),
  speculate: Type.Optional(Type.Enum([...speculateChoices])),
}

const Sending = Type.Object(sendingForm)
export type Sending = Static<typeof Sending>

/** What `protect` does unless it is told otherwise. */
export const sendingDefault: Sending = {
  reduce: [...reduceParts],
  compress: 'auto',
  speculate: 'auto',
}

/** Whether deltas go through a reducer at all. */
export const reduces = ({ reduce = [], compress = 'off' }: Sending) => reduce.length > 0 || compress !== 'off'
