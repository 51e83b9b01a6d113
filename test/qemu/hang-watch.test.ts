/** A QEMU that gives no answer: when that counts as hung, and when only we were not looking. */
import { expect, test } from 'vitest'
import { HangWatch, hangTimes } from '../../src/qemu/hang-watch.ts'

const { askMs, hungMs, stuckMs, tickMs } = hangTimes

/** Time that a test moves on, in steps of the watch unless it says otherwise. */
class Bench {
  now = 0
  readonly said: string[] = []
  readonly of = {
    pendingCount: 0,
    answerCount: 0,
    ask: () => {
      this.of.pendingCount++
      this.said.push('asked')
    },
  }
  #run: (() => void) | undefined
  readonly watch = new HangWatch({
    of: this.of,
    what: 'QEMU (process 7)',
    clock: {
      now: () => this.now,
      after: (_, run) => {
        this.#run = run
        return () => {
          this.#run = undefined
        }
      },
    },
  })

  constructor() {
    this.watch.on('hung', () => this.said.push('hung'))
    this.watch.on('answers', () => this.said.push('answers'))
    this.watch.on('stuck', () => this.said.push('stuck'))
  }

  pass(ms: number, step: number = tickMs): void {
    for (const until = this.now + ms; this.now < until; ) {
      this.now += step
      this.#run?.()
    }
  }

  answer(): void {
    this.of.answerCount += this.of.pendingCount
    this.of.pendingCount = 0
  }

  count(what: string): number {
    return this.said.filter((said) => said === what).length
  }
}

test('one that nobody asks anything is asked now and then', () => {
  const bench = new Bench()
  for (let n = 0; n < 10; n++) {
    bench.pass(askMs)
    bench.answer()
  }
  expect(bench.count('asked')).toBe(5)
  expect(bench.said).not.toContain('hung')
})

test('one that answers others is not asked', () => {
  const bench = new Bench()
  for (let n = 0; n < 40; n++) {
    bench.of.pendingCount++
    bench.answer()
    bench.pass(tickMs)
  }
  expect(bench.said).toEqual([])
})

test('silence counts as hung after the stated time, not before, and ends with an answer', async () => {
  const bench = new Bench()
  bench.of.pendingCount = 1
  bench.pass(hungMs - tickMs)
  expect(bench.watch.since).toBeUndefined()
  bench.pass(tickMs)
  expect(bench.said).toEqual(['hung'])
  expect(bench.watch.reason).toMatch(/^QEMU \(process 7\) gives no answer since \d{4}-/)
  expect(() => bench.watch.refuseIfHung()).toThrow(expect.objectContaining({ code: 'GUEST_HUNG' }))
  bench.pass(stuckMs - hungMs - tickMs)
  expect(bench.said).toEqual(['hung'])
  bench.pass(2 * tickMs)
  expect(bench.said).toEqual(['hung', 'stuck', 'stuck'])
  bench.answer()
  bench.pass(tickMs)
  expect(bench.said.slice(3)).toEqual(['answers'])
  expect(bench.watch.since).toBeUndefined()
  bench.watch.refuseIfHung()
})

test('an answer to something else than what waits is a sign of life', () => {
  const bench = new Bench()
  bench.of.pendingCount = 2
  for (let n = 0; n < 20; n++) {
    bench.of.answerCount++
    bench.pass(hungMs - tickMs)
  }
  expect(bench.said).not.toContain('hung')
})

test('time in which we did not run ourselves does not count', () => {
  const bench = new Bench()
  bench.of.pendingCount = 1
  // Stopped for a minute, and for a minute more.
  bench.pass(60_000, 60_000)
  bench.pass(60_000, 60_000)
  expect(bench.said).toEqual([])
  bench.answer()
  bench.pass(tickMs)
  expect(bench.said).toEqual([])
})

test('who waits for work waits no longer, and for new work not at all', async () => {
  const bench = new Bench()
  const never = new Promise<never>(() => undefined)
  const waiting = bench.watch.during(never)
  await expect(bench.watch.during(Promise.resolve(5))).resolves.toBe(5)
  bench.of.pendingCount = 1
  bench.pass(hungMs)
  await expect(waiting).rejects.toMatchObject({ code: 'GUEST_HUNG' })
  await expect(bench.watch.during(never)).rejects.toMatchObject({ code: 'GUEST_HUNG' })
  bench.answer()
  bench.pass(tickMs)
  await expect(bench.watch.during(Promise.reject(new Error('as ever')))).rejects.toThrow('as ever')
})
