/**
 * A protection is ended by command, and right then something dies, at every moment of it: the guest goes on in one copy, or it is
 * gone because it was not protected any more, and then no standby waits for it either.
 */
import { afterEach, describe, expect, test } from 'vitest'
import { pairOf, type SimPair } from './explicit-world.ts'
import type { SimWorld } from './sim-world.ts'

const commandMs = 500
/** A restart of an supervisor, and what hosts wait for each other, are over. */
const settledMs = 8_000
const victims = [
  'supervisor a',
  'supervisor b',
  'guest',
  'host a',
  'host b',
  'link',
  'answers of the arbiter',
] as const
type Victim = (typeof victims)[number]

const pairs: SimPair[] = []
afterEach(() => {
  for (const pair of pairs.splice(0)) pair.close()
})

async function unprotectMidway(victim: Victim, afterMs: number) {
  const pair = pairOf()
  pairs.push(pair)
  const { world, a, b } = pair
  const { time } = world
  const supervisor = a.supervisor!
  let answer = ''
  time.after(commandMs, () => {
    if (supervisor.process.state !== 'running' || supervisor.hosted?.kind !== 'running') return
    if (afterMs > 0) expect(supervisor.hosted.primary).toMatchObject({ state: 'Protected', covered: true })
    supervisor.process.enter(
      () =>
        void supervisor.unprotect().then(
          () => {
            answer = 'done'
          },
          (error: Error) => {
            answer = error.message
          },
        ),
    )
  })
  time.after(commandMs + afterMs, () => kill(world, victim))
  let seen = 0
  time.after(settledMs - 1_000, () => {
    seen = world.client.packets
  })
  await pair.runFor(settledMs)
  const copies = world.copies.map(({ host }) => host)
  return {
    copies,
    answer,
    speaks: world.client.packets > seen,
    standby: b.supervisor?.hosted?.kind === 'standby',
    protects: a.supervisor?.hosted?.kind === 'running' && a.supervisor.hosted.primary !== undefined,
  }
}

function kill({ hosts, copies, network, arbiter, time }: SimWorld, victim: Victim): void {
  const [a, b] = hosts as [SimWorld['hosts'][0], SimWorld['hosts'][0]]
  switch (victim) {
    case 'supervisor a':
    case 'supervisor b': {
      const host = victim === 'supervisor a' ? a : b
      host.crashSupervisor()
      time.after(300, () => host.startSupervisor())
      return
    }
    case 'guest':
      copies.find(({ host }) => host === 'a')?.die({ how: 'died', detail: 'killed' })
      return
    case 'host a':
      a.loseEverything()
      return
    case 'host b':
      b.loseEverything()
      return
    case 'link':
      network.cut()
      return
    case 'answers of the arbiter':
      arbiter.cutOff.add('a')
      return
  }
}

/** Milliseconds: from before the command until it is over, most of them while it is under way. */
const moments = [-1, ...Array.from({ length: 16 }, (_, n) => n / 4), 5, 7, 10, 20]

describe.each(victims)('%s', (victim) => {
  test('at every moment', { timeout: 180_000 }, async () => {
    const ends = new Map<string, number>()
    for (const afterMs of moments) {
      const end = await unprotectMidway(victim, afterMs)
      const what = `${victim} ${afterMs} ms after the command: ${JSON.stringify(end)}`
      expect(end.copies.length, what).toBeLessThanOrEqual(1)
      if (end.copies.length === 1) {
        expect(end.speaks, what).toBe(true)
        // Over a link that is cut the arbiter tells it.
        if (end.answer === 'done')
          expect(end, what).toMatchObject({ copies: ['a'], protects: false, standby: false })
      } else {
        expect(['guest', 'host a'], what).toContain(victim)
        // Nobody keeps a copy that nobody goes on with.
        expect(end.standby, what).toBe(false)
      }
      const [copy = 'none'] = end.copies
      ends.set(copy, (ends.get(copy) ?? 0) + 1)
    }
    if (victim === 'guest' || victim === 'host a') expect([...ends.keys()].sort()).toEqual(['b', 'none'])
    // Its standby may have taken over from an supervisor that is away for longer than it is suspected.
    else expect([...ends.keys()].filter((copy) => victim !== 'supervisor a' || copy !== 'b')).toEqual(['a'])
  })
})

test('while the standby is seeded, over a link that is cut before it hears: it does not wait for ever', async () => {
  const [lookMs, momentMs] = [0.25, 0.5]
  for (let moment = 0; moment < 3; moment++) {
    const pair = pairOf()
    pairs.push(pair)
    const { world, a, b } = pair
    const answers: string[] = []
    const primary = () =>
      a.supervisor!.hosted?.kind === 'running' ? a.supervisor!.hosted.primary : undefined
    const command = async () => {
      answers.push(primary()!.state)
      world.network.cut()
      await a.supervisor!.unprotect().catch((error) => world.fail(error))
      answers.push('done')
    }
    const look = () => {
      if (primary()?.state !== 'Seeding') return void world.time.after(lookMs, look)
      world.time.after(moment * momentMs, () => a.supervisor!.process.enter(() => void command()))
    }
    look()
    await pair.runFor(settledMs + 2_000)
    expect(answers).toEqual(['Seeding', 'done'])
    expect(world.copies.map(({ host }) => host)).toEqual(['a'])
    expect(b.supervisor?.hosted?.kind, `${moment * momentMs} ms after its beginning`).toBeUndefined()
  }
})
