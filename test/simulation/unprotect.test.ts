/**
 * A protection is ended by command, and right then something dies, at every moment of it: the guest goes on in one copy, or it is
 * gone because it was not protected any more, and then no standby waits for it either.
 */
import { afterEach, describe, expect, test } from 'vitest'
import { pauseLimits } from '../../src/replication/pause-limits.ts'
import { type SimSettings, SimWorld } from './sim-world.ts'

const settings: SimSettings = {
  pages: 8,
  stepMs: 4,
  epochMs: 25,
  pauseShareMax: undefined,
  suspicionMs: 100,
  outputs: 'held',
  chosen: true,
  sameMachine: false,
  apart: false,
  tracker: 'userfault',
  codec: 'masked',
  sending: { reduce: [], blockBytes: 64, compress: 'off', speculate: 'off' },
  limits: pauseLimits,
}

const commandMs = 500
/** A restart of an agent, and what hosts wait for each other, are over. */
const settledMs = 8_000
const victims = ['agent a', 'agent b', 'guest', 'host a', 'host b', 'link', 'answers of the arbiter'] as const
type Victim = (typeof victims)[number]

const worlds: SimWorld[] = []
afterEach(() => {
  for (const world of worlds.splice(0)) {
    for (const host of world.hosts) host.crashAgent()
    for (const qemu of world.qemus) qemu.ram.close()
  }
})

async function unprotectMidway(victim: Victim, afterMs: number) {
  const world = new SimWorld(1, () => settings)
  worlds.push(world)
  const { time } = world
  const [a, b] = world.hosts as [SimWorld['hosts'][0], SimWorld['hosts'][0]]
  const { epochMs, suspicionMs, outputs, tracker, codec, sending } = settings
  for (const host of world.hosts) host.startAgent()
  const agent = a.agent!
  agent.run()
  agent.process.enter(
    () => void agent.protect({ to: 'b', epochMs, suspicionMs, outputs, tracker, codec, ...sending }),
  )
  let answer = ''
  time.after(commandMs, () => {
    if (agent.process.state !== 'running' || agent.hosted?.kind !== 'running') return
    if (afterMs > 0) expect(agent.running().primary).toMatchObject({ state: 'Protected', covered: true })
    agent.process.enter(
      () =>
        void agent
          .running()
          .unprotect()
          .then(
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
  let over = false
  time.after(settledMs, () => {
    over = true
  })
  await time.run(() => {
    if (world.failure) throw world.failure
    return over
  })
  const copies = world.copies.map(({ host }) => host)
  return {
    copies,
    answer,
    speaks: world.client.packets > seen,
    standby: b.agent?.hosted?.kind === 'standby',
    protects: a.agent?.hosted?.kind === 'running' && a.agent.hosted.primary !== undefined,
  }
}

function kill({ hosts, copies, network, arbiter, time }: SimWorld, victim: Victim): void {
  const [a, b] = hosts as [SimWorld['hosts'][0], SimWorld['hosts'][0]]
  switch (victim) {
    case 'agent a':
    case 'agent b': {
      const host = victim === 'agent a' ? a : b
      host.crashAgent()
      time.after(300, () => host.startAgent())
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
  test('at every moment', { timeout: 60_000 }, async () => {
    const ends = new Map<string, number>()
    for (const afterMs of moments) {
      const end = await unprotectMidway(victim, afterMs)
      const what = `${victim} ${afterMs} ms after the command: ${JSON.stringify(end)}`
      expect(end.copies.length, what).toBeLessThanOrEqual(1)
      if (end.copies.length === 1) {
        expect(end.speaks, what).toBe(true)
        // Over a link that is cut a standby cannot be told.
        const told = victim === 'link' ? {} : { standby: false }
        if (end.answer === 'done')
          expect(end, what).toMatchObject({ copies: ['a'], protects: false, ...told })
      } else {
        expect(['guest', 'host a'], what).toContain(victim)
        // Nobody keeps a copy that nobody goes on with.
        expect(end.standby, what).toBe(false)
      }
      const [copy = 'none'] = end.copies
      ends.set(copy, (ends.get(copy) ?? 0) + 1)
    }
    if (victim === 'guest' || victim === 'host a') expect([...ends.keys()].sort()).toEqual(['b', 'none'])
    // Its standby may have taken over from an agent that is away for longer than it is suspected.
    else expect([...ends.keys()].filter((copy) => victim !== 'agent a' || copy !== 'b')).toEqual(['a'])
  })
})
