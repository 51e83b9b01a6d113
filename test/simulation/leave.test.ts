/**
 * A supervisor is ended in an orderly way, and a command meets that: either the command is carried out to its end, or it is refused,
 * for the next supervisor. A standby that has not heard of it may not go on with the guest.
 */
import { afterEach, describe, expect, test } from 'vitest'
import { pairOf, type SimPair } from './explicit-world.ts'

const leaveMs = 500
const awayMs = 1_000
/** The standby has given up waiting for the next supervisor. */
const settledMs = 12_000

const pairs: SimPair[] = []
afterEach(() => {
  for (const pair of pairs.splice(0)) pair.close()
})

/** @param quitMs what QEMU takes to end */
async function meet(command: 'unprotect' | 'remove', afterMs: number, quitMs = 0) {
  const pair = pairOf()
  pairs.push(pair)
  const { world, a, b } = pair
  const supervisor = a.supervisor!
  let answer = ''
  pair.at(leaveMs - 20, () => {
    world.copies[0]!.quitMs = quitMs
  })
  pair.at(leaveMs, () => supervisor.process.enter(() => void a.endSupervisor(awayMs)))
  pair.at(leaveMs + afterMs, () =>
    supervisor.process.enter(
      () =>
        void supervisor[command]().then(
          () => {
            answer = 'done'
          },
          (error: { code: string }) => {
            answer = error.code
          },
        ),
    ),
  )
  await pair.runFor(settledMs)
  return {
    answer,
    copies: world.copies.map(({ host }) => host),
    standby: b.supervisor?.hosted?.kind === 'standby',
    protects: a.supervisor?.hosted?.kind === 'running' && a.supervisor.hosted.primary !== undefined,
  }
}

const carriedOut = {
  unprotect: { answer: 'done', copies: ['a'], standby: false, protects: false },
  remove: { answer: 'done', copies: [], standby: false, protects: false },
}
const goesOn = { copies: ['a'], standby: true, protects: true }
/** The agent asks the next supervisor. */
const refused = { ...goesOn, answer: 'AGENT_UNREACHABLE' }
/** The supervisor was gone before it had an answer: as if it had been refused. */
const unanswered = { ...goesOn, answer: '' }

describe.each(['unprotect', 'remove'] as const)('%s', (command) => {
  test.each([-1, -0.5, -0.25])('%d ms before the end', async (ms) => {
    expect([carriedOut[command], unanswered]).toContainEqual(await meet(command, ms))
  })

  test.each([0, 0.25, 0.5, 1, 2])('%d ms after its beginning', async (ms) => {
    expect([refused, unanswered]).toContainEqual(await meet(command, ms))
  })
})

test.each([1, 5, 20])('remove, %d ms before the end, of a QEMU that takes longer than that', async (ms) => {
  expect(await meet('remove', -ms, 50)).toEqual(carriedOut.remove)
})
