/** Counts what a primary captures; everything is captured as ever. */
import { onTestFinished, vi } from 'vitest'
import { DeltaWriter } from '../../src/replication/delta-writer.ts'

/** @param counts asked as a capture begins: whether it is to be counted */
export function watchCaptures(counts: (whole: boolean) => boolean) {
  const seen = { pages: 0, bytes: 0 }
  const { capture } = DeltaWriter.prototype
  const spy = vi.spyOn(DeltaWriter.prototype, 'capture').mockImplementation(async function (
    this: DeltaWriter,
    ...args
  ) {
    const counted = counts(args[1])
    if (counted) seen.pages += args[0].pageCount
    const captured = await capture.apply(this, args)
    if (counted) seen.bytes += captured.bytes
    return captured
  })
  onTestFinished(() => spy.mockRestore())
  return seen
}
