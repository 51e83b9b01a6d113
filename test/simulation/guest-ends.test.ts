/**
 * A guest ends as somebody wanted while its standby cannot be told, at any moment of losing it: the guest stays ended, and no
 * standby is left behind for it, whatever that held.
 */
import { afterEach, expect, test } from 'vitest'
import { pairOf, type SimPair } from './explicit-world.ts'

const pairs: SimPair[] = []
afterEach(() => {
  for (const pair of pairs.splice(0)) pair.close()
})

/** Milliseconds from the cut to the end: before the standby is missed, while it is decided, and after. */
const moments = [0, 1, 5, 20, 60, 99, 101, 103, 106, 110, 150, 400, 2_000]
/** When the link is cut: while the memory is sent for the first time, and later. */
const cuts = [48, 500]

test.each(cuts)('cut off %i ms after its start', { timeout: 60_000 }, async (cutMs) => {
  for (const afterMs of moments) {
    const pair = pairOf()
    pairs.push(pair)
    const { world, b, at } = pair
    at(cutMs, () => world.network.cut())
    at(cutMs + afterMs, () =>
      world.copies
        .find(({ host }) => host === 'a')
        ?.die({ how: 'powered-off', detail: 'it shut itself down' }),
    )
    await pair.runFor(12_000)
    const left = { copies: world.copies.map(({ host }) => host), standby: b.supervisor?.hosted?.kind }
    expect(left, `${afterMs} ms after the cut\n${world.log.slice(-20).join('\n')}`).toEqual({
      copies: [],
      standby: undefined,
    })
  }
})
