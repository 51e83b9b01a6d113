/**
 * A guest whose pages leave its memory in the pauses of its checkpoints, as many as may: whatever fails on the way, no page is read
 * while it is elsewhere, and none that was written is lost.
 */
import { expect, onTestFinished, test } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import type { Pause } from '../../src/replication/guest.ts'
import type { GuestMemory } from '../../src/replication/guest-memory.ts'
import { seededRandom } from '../support/random.ts'
import { type Pair, startPair } from './pair.ts'
import type { ScriptedGuest } from './scripted-guest.ts'

const random = seededRandom()

class MovedMemory implements GuestMemory {
  readonly dense = true
  readonly moved = true
  readonly #guest: ScriptedGuest
  #checkpointing = false
  /** Throws when an eviction is cut short. */
  cut: () => void = () => undefined
  left = 0
  brought = 0

  constructor(guest: ScriptedGuest) {
    this.#guest = guest
  }

  async settled(): Promise<void> {}

  async bring(pages: PageRanges): Promise<void> {
    await new Promise(setImmediate)
    for (const page of pages.pages())
      if (this.#guest.away.has(page)) {
        this.#guest.bringBack(page)
        this.brought++
      }
  }

  checkpointing(on: boolean): void {
    this.#checkpointing = on
  }

  async leave(_pause: Pause, stay: PageRanges, leaving: (pages: PageRanges) => void): Promise<void> {
    expect(this.#checkpointing).toBe(true)
    const chosen = Array.from({ length: this.#guest.ram.pages }, (_, page) => page).filter(
      (page) => !stay.has(page) && !this.#guest.away.has(page) && random.integer(0, 2) === 0,
    )
    leaving(PageRanges.of(chosen.map((page) => [page, 1])))
    for (const page of chosen) {
      try {
        this.cut()
      } catch {
        // Whoever wanted them to leave hears of it. The guard has let the guest run meanwhile.
        this.#guest.paused = false
        for (const moved of chosen.filter((one) => this.#guest.away.has(one)))
          this.#guest.write(moved * pageBytes, Uint8Array.of(random.integer(1, 255)))
        return
      }
      this.#guest.moveOut(page)
      this.left++
    }
  }
}

async function start(): Promise<{ pair: Pair; memory: MovedMemory }> {
  // Few enough that a new connection seeds, and does not leave it to the first checkpoint.
  const pair = await startPair({ random, limits: { wholePages: 16 } })
  const memory = new MovedMemory(pair.guest)
  pair.options.memory = memory
  await pair.protect()
  await pair.epochs(3)
  return { pair, memory }
}

type Now = () => boolean

const mishaps: [what: string, provoke: (pair: Pair, now: Now, memory: MovedMemory) => void][] = [
  ['nothing fails', (_, now) => void setInterval(now, 5).unref()],
  ['the pause was broken', ({ guest }, now) => (guest.mishaps.resume = () => ({ valid: !now() }))],
  [
    'the tracker forgets what was written',
    ({ guest }, now) =>
      (guest.mishaps.harvest = () => {
        if (now()) throw new SubpageError('PAUSE_BROKEN', 'half-way')
      }),
  ],
  [
    'an eviction is cut short, and its pause broken',
    (pair, now, memory) => {
      // Else it would soon write again what was lost.
      pair.rest()
      let cut = false
      memory.cut = () => {
        if (!now()) return
        cut = true
        throw new SubpageError('KEEPER_FAILED', 'it has ended')
      }
      pair.guest.mishaps.resume = () => {
        const valid = !cut
        cut = false
        return { valid }
      }
    },
  ],
  [
    'the connection breaks',
    ({ host }, now) => {
      const breaking = setInterval(() => now() && host.dropConnections(), 20)
      onTestFinished(() => clearInterval(breaking))
    },
  ],
]

test.each(mishaps)('%s: no page is read while it is elsewhere, and none is forgotten', async (_, provoke) => {
  const { pair, memory } = await start()
  pair.host.source = 'runs'
  let left = 6
  provoke(
    pair,
    () => {
      const now = left > 0 && random.integer(0, 3) === 0
      if (now) left--
      return now
    },
    memory,
  )
  // Of some kinds there are no more once all that is cold has left.
  await expect.poll(() => left, { timeout: 20_000 }).toBeLessThan(4)
  left = 0
  await pair.epochs(10)
  expect(memory.left).toBeGreaterThan(40)
  expect(await pair.primary!.verify(), `seed ${random.seed}`).toMatchObject({ equal: true })
  expect(memory.brought).toBeGreaterThan(0)
  pair.guest.end({ how: 'died', detail: 'at last' })
  expect(await pair.host.outcome).toMatchObject({ how: 'took-over' })
  expect(pair.host.waiting.whole, `seed ${random.seed}`).toBe(true)
})
