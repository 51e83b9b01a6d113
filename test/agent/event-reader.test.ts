/** Server-sent events, read: the same however their bytes were cut. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { eventsOf } from '../../src/agent/event-reader.ts'

test('any events, cut into any pieces', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.jsonValue()), fc.array(fc.nat(20)), async (events, cuts) => {
      let text = events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join('')
      const pieces: string[] = []
      for (const cut of cuts) {
        pieces.push(text.slice(0, cut))
        text = text.slice(cut)
      }
      const read: unknown[] = []
      const chunks = (async function* () {
        yield* [...pieces, text]
      })()
      for await (const event of eventsOf(chunks)) read.push(event)
      expect(JSON.stringify(read)).toBe(JSON.stringify(events))
    }),
    { numRuns: 200 },
  )
})

test('what is cut off in the middle is no event', async () => {
  const chunks = (async function* () {
    yield 'data: 1\n\ndata: 2'
  })()
  const read: unknown[] = []
  for await (const event of eventsOf(chunks)) read.push(event)
  expect(read).toEqual([1])
})
