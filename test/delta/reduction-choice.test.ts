/** How much work deltas get is chosen for the time at which the other side has them: on links and processors of any speed. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ReductionChoice, type ReductionMethod, reductionMethods } from '../../src/delta/reduction-choice.ts'

interface Machine {
  linkBytesPerUs: number
  /** Bytes of delta per microsecond of reducing, and bytes that are left of each. */
  speed: Record<ReductionMethod, number>
  ratio: Record<ReductionMethod, number>
}

const deltaBytes = 256 * 1024
const usual: Machine = {
  linkBytesPerUs: 100,
  speed: { none: Number.POSITIVE_INFINITY, off: 500, lz4: 300, zstd: 150 },
  ratio: { none: 1, off: 0.5, lz4: 0.3, zstd: 0.2 },
}
const idle = () => 0

const reduceUs = ({ speed }: Machine, method: ReductionMethod) => deltaBytes / speed[method]
const totalUs = (machine: Machine, method: ReductionMethod) =>
  reduceUs(machine, method) + (deltaBytes * machine.ratio[method]) / machine.linkBytesPerUs

function epochs(choice: ReductionChoice, machine: Machine, count: number): ReductionMethod[] {
  return Array.from({ length: count }, () => {
    const method = choice.next(deltaBytes)
    choice.learn(method, deltaBytes, reduceUs(machine, method), totalUs(machine, method))
    return method
  })
}

const share = (methods: ReductionMethod[], method: ReductionMethod) =>
  methods.filter((m) => m === method).length / methods.length

describe('auto', () => {
  const slow = { ...usual, linkBytesPerUs: 12 }
  const fast = { ...usual, linkBytesPerUs: 3_000 }

  test('takes the strongest on a slow link', () => {
    const choice = new ReductionChoice('auto', idle)
    epochs(choice, slow, 200)
    expect(share(epochs(choice, slow, 200), 'zstd')).toBeGreaterThan(0.9)
  })

  test('does nothing for a link that is faster than reducing', () => {
    const choice = new ReductionChoice('auto', idle)
    epochs(choice, fast, 200)
    expect(share(epochs(choice, fast, 200), 'none')).toBeGreaterThan(0.9)
  })

  test('follows a link that changes', () => {
    const choice = new ReductionChoice('auto', idle)
    epochs(choice, fast, 200)
    // What was bad by far is not tried often.
    epochs(choice, slow, 1_100)
    expect(share(epochs(choice, slow, 200), 'zstd')).toBeGreaterThan(0.9)
  })

  test('gives up what a processor makes slow', () => {
    const choice = new ReductionChoice('auto', idle)
    epochs(choice, usual, 200)
    const loaded = { ...usual, speed: { ...usual.speed, off: 30, lz4: 20, zstd: 10 } }
    epochs(choice, loaded, 300)
    expect(share(epochs(choice, loaded, 200), 'none')).toBeGreaterThan(0.9)
  })

  test('works less where no processor is idle', () => {
    // Reducing gains a little: 1.3 us for 1.4.
    const close = { ...usual, speed: { ...usual.speed, off: 197_000 }, linkBytesPerUs: 90_000 }
    const chosen = (busy: number) => {
      const choice = new ReductionChoice('auto', () => busy)
      epochs(choice, close, 200)
      return epochs(choice, close, 200)
    }
    expect(share(chosen(0), 'off')).toBeGreaterThan(0.9)
    expect(share(chosen(1), 'none')).toBeGreaterThan(0.9)
  })

  test('is soon no slower than the best, but for its trials', () => {
    const rate = fc.double({ min: 1, max: 5_000, noNaN: true })
    const left = fc.double({ min: 0.05, max: 1, noNaN: true })
    fc.assert(
      fc.property(rate, fc.tuple(rate, rate, rate), fc.tuple(left, left, left), (linkBytesPerUs, s, r) => {
        const machine: Machine = {
          linkBytesPerUs,
          speed: { none: Number.POSITIVE_INFINITY, off: s[0], lz4: s[1], zstd: s[2] },
          ratio: { none: 1, off: r[0], lz4: r[1], zstd: r[2] },
        }
        const choice = new ReductionChoice('auto', idle)
        epochs(choice, machine, 1_500)
        const took = epochs(choice, machine, 640)
        const best = Math.min(...reductionMethods.map((method) => totalUs(machine, method)))
        const good = took.filter((method) => totalUs(machine, method) <= best * 1.05)
        // Each of the three others is tried once in 64 epochs at most.
        expect(good.length / took.length).toBeGreaterThan(0.9)
      }),
      { numRuns: 60 },
    )
  })
})

test.each(['off', 'lz4', 'zstd'] as const)('%s stays what was asked for', (method) => {
  expect(share(epochs(new ReductionChoice(method, idle), usual, 100), method)).toBe(1)
})
