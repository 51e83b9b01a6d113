/** Compression is chosen for the time at which the other side has the bytes: on links and processors of any speed. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { CompressionChoice } from '../../src/delta/compression-choice.ts'
import type { SqueezeMethod } from '../../src/delta/reduce.ts'

interface Machine {
  linkBytesPerUs: number
  /** Bytes of body per microsecond, and bytes that are left of each. */
  speed: Record<SqueezeMethod, number>
  ratio: Record<SqueezeMethod, number>
}

const bodyBytes = 256 * 1024
const usual: Machine = {
  linkBytesPerUs: 100,
  speed: { off: 10_000, lz4: 400, zstd: 200 },
  ratio: { off: 1, lz4: 0.5, zstd: 0.33 },
}

const timeUs = ({ speed, ratio, linkBytesPerUs }: Machine, method: SqueezeMethod) =>
  bodyBytes / speed[method] + (bodyBytes * ratio[method]) / linkBytesPerUs

function epochs(choice: CompressionChoice, machine: Machine, count: number): SqueezeMethod[] {
  return Array.from({ length: count }, () => {
    const method = choice.next(bodyBytes)
    const sent = bodyBytes * machine.ratio[method]
    choice.learn(method, bodyBytes, bodyBytes / machine.speed[method], sent, sent / machine.linkBytesPerUs)
    return method
  })
}

const share = (methods: SqueezeMethod[], method: SqueezeMethod) =>
  methods.filter((m) => m === method).length / methods.length

describe('auto', () => {
  const slow = { ...usual, linkBytesPerUs: 12 }
  const fast = { ...usual, linkBytesPerUs: 3_000 }

  test('takes the strongest on a slow link', () => {
    const choice = new CompressionChoice('auto')
    epochs(choice, slow, 200)
    expect(share(epochs(choice, slow, 200), 'zstd')).toBeGreaterThan(0.9)
  })

  test('is off on a link that is faster than any compressor', () => {
    const choice = new CompressionChoice('auto')
    epochs(choice, fast, 200)
    expect(share(epochs(choice, fast, 200), 'off')).toBeGreaterThan(0.9)
  })

  test('follows a link that changes', () => {
    const choice = new CompressionChoice('auto')
    epochs(choice, fast, 200)
    epochs(choice, slow, 100)
    expect(share(epochs(choice, slow, 100), 'zstd')).toBeGreaterThan(0.9)
  })

  test('gives up what a busy processor makes slow', () => {
    const busy = { ...usual, speed: { off: 10_000, lz4: 30, zstd: 10 } }
    const choice = new CompressionChoice('auto')
    epochs(choice, usual, 200)
    epochs(choice, busy, 300)
    expect(share(epochs(choice, busy, 200), 'off')).toBeGreaterThan(0.9)
  })

  test('is soon no slower than the best, but for its trials', () => {
    const rate = fc.double({ min: 1, max: 5_000, noNaN: true })
    const left = fc.double({ min: 0.05, max: 1, noNaN: true })
    fc.assert(
      fc.property(rate, rate, rate, left, left, (linkBytesPerUs, lz4, zstd, lz4Left, zstdLeft) => {
        const machine: Machine = {
          linkBytesPerUs,
          speed: { off: 10_000, lz4, zstd },
          ratio: { off: 1, lz4: lz4Left, zstd: zstdLeft },
        }
        const choice = new CompressionChoice('auto')
        epochs(choice, machine, 1_500)
        const took = epochs(choice, machine, 640)
        const best = Math.min(...(['off', 'lz4', 'zstd'] as const).map((m) => timeUs(machine, m)))
        const good = took.filter((method) => timeUs(machine, method) <= best * 1.05)
        // Each of the two others is tried once in 64 epochs.
        expect(good.length / took.length).toBeGreaterThan(0.9)
      }),
      { numRuns: 60 },
    )
  })
})

test.each(['off', 'lz4', 'zstd'] as const)('%s stays what was asked for', (method) => {
  expect(share(epochs(new CompressionChoice(method), usual, 100), method)).toBe(1)
})
