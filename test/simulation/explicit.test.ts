/**
 * Schedules that are written down, one for each defect that must not come back: without it the guest serves again, with it the
 * simulator sees that something is wrong.
 */
import { afterEach, describe, expect, test, vi } from 'vitest'
import { RunningGuest } from '../../src/agent/supervisor/running-guest.ts'
import { HangWatch } from '../../src/qemu/hang-watch.ts'
import { Succession } from '../../src/replication/succession.ts'
import { pairOf, type SimPair } from './explicit-world.ts'

const keeper = vi.hoisted(() => ({ staysBroken: false }))

vi.mock('../../src/replication/image-keeper.ts', async (original) => {
  const { ImageKeeper } = await original<typeof import('../../src/replication/image-keeper.ts')>()
  class BrokenKeeper extends ImageKeeper {
    #failure: unknown
    override async commit(...given: Parameters<InstanceType<typeof ImageKeeper>['commit']>): Promise<void> {
      await super.commit(...given).catch((error) => {
        this.#failure = error
        throw error
      })
    }
    override async settle(): Promise<void> {
      await super.settle()
      if (keeper.staysBroken && this.#failure) throw this.#failure
    }
  }
  return { ImageKeeper: BrokenKeeper }
})

interface Explicit {
  name: string
  /** Puts the defect in. */
  defect: () => void
  script: (pair: SimPair) => void
  /** Until everything must be well again. */
  settledMs: number
  /** Where the guest goes on; undefined: nowhere, for nobody has what clients have seen. */
  on: 'a' | 'b' | undefined
}

const notAsked = async () => undefined

const schedules: Explicit[] = [
  {
    name: 'a checkpoint that could not be applied does not keep the standby from being served again',
    defect: () => {
      keeper.staysBroken = true
    },
    script: ({ world }) => fault(world, 'before-apply', 5, 'throw'),
    settledMs: 5_000,
    on: 'a',
  },
  {
    name: 'a primary that comes back to a standby which has forgotten its takeover does not go on in the old history',
    defect: () => void vi.spyOn(Succession.prototype, 'anchor').mockImplementation(notAsked),
    script: ({ a, b, at }) => {
      at(500, () => stopHost(a))
      at(2_000, () => b.loseEverything())
      at(2_100, () => b.comeBack())
      // Also one that is there no more.
      const forget = () => void b.supervisor?.remove().catch(() => undefined)
      at(3_000, () => b.supervisor?.process.enter(forget))
      at(4_000, () => goOnHost(a))
    },
    settledMs: 9_000,
    on: undefined,
  },
  {
    name: 'what a standby was granted, and its QEMU could not use, goes back',
    defect: () => void vi.spyOn(Succession.prototype, 'giveBack').mockImplementation(notAsked),
    script: (pair) => {
      fault(pair.world, 'before-load', 1, 'throw')
      losePrimary(pair)
    },
    settledMs: 9_000,
    on: 'a',
  },
  {
    name: 'what a standby was granted goes back when its supervisor is killed before it could use it',
    defect: () => void vi.spyOn(Succession.prototype, 'giveBackLeft').mockImplementation(notAsked),
    script: (pair) => {
      fault(pair.world, 'before-load', 1, 'kill')
      losePrimary(pair)
    },
    settledMs: 9_000,
    on: 'a',
  },
  {
    name: 'a QEMU that stands still for ever is noticed and ended, and its standby goes on',
    defect: () => void vi.spyOn(HangWatch.prototype, 'emit').mockReturnValue(false),
    script: ({ world, at }) => at(500, () => world.copies[0]?.stop()),
    settledMs: 16_000,
    on: 'b',
  },
  {
    name: 'a protection whose end was begun ends, and can begin again, although QEMU hung in the middle of it',
    defect: () =>
      void vi.spyOn(RunningGuest.prototype, 'unprotect').mockImplementation(async function (
        this: RunningGuest,
      ) {
        return await this.qemu.hang.during(this.primary?.stop() ?? Promise.resolve([]))
      }),
    script: ({ world, a, at, protect }) => {
      at(500, () => world.copies[0]?.stop())
      // It is told that QEMU hangs.
      const end = () => void a.supervisor?.unprotect().catch(() => undefined)
      at(501, () => a.supervisor?.process.enter(end))
      at(8_500, () => world.copies[0]?.goOn())
      at(11_000, protect)
    },
    settledMs: 13_000,
    on: 'a',
  },
  {
    name: 'a primary whose claim had no answer before the arbiter was replaced meets its standby again',
    defect: () => void vi.spyOn(Succession.prototype, 'replaced', 'get').mockReturnValue(false),
    script: ({ world, b, at }) => {
      const { arbiter } = world
      // It hears the claim, and its answer does not arrive.
      arbiter.note = (text) => {
        if (text.includes('claims generation 2')) arbiter.lostAnswers = 100
      }
      at(500, () => b.crashSupervisor())
      at(2_000, () => arbiter.restore())
      at(4_000, () => {
        arbiter.note = () => undefined
        arbiter.lostAnswers = 0
      })
      at(8_000, () => b.startSupervisor())
    },
    settledMs: 14_000,
    on: 'a',
  },
  {
    name: 'a standby whose claim had no answer before the arbiter was replaced is met by its primary again',
    defect: () => void vi.spyOn(Succession.prototype, 'replaced', 'get').mockReturnValue(false),
    script: (pair) => loseAnswers(pair, () => pair.world.arbiter.restore()),
    settledMs: 14_000,
    on: 'a',
  },
  {
    name: 'what such a claim has won, as the restored arbiter knows, is given back when they meet',
    defect: () => void vi.spyOn(Succession.prototype, 'settleClaim').mockImplementation(notAsked),
    script: (pair) =>
      loseAnswers(pair, () => {
        pair.world.arbiter.backUp()
        pair.world.arbiter.restore()
      }),
    settledMs: 14_000,
    on: 'a',
  },
  {
    name: 'what a command was granted goes back when the checkpoint cannot be applied meanwhile',
    defect: () => void vi.spyOn(Succession.prototype, 'giveBack').mockImplementation(notAsked),
    script: ({ world, b, at }) => {
      const { arbiter } = world
      at(500, () => {
        arbiter.slowMs = 400
        arbiter.cutOff.add('a')
        fault(world, 'before-apply', 1, 'throw')
        // That it fails is the schedule's point.
        const takeOver = () => void b.supervisor?.failover(false).catch(() => undefined)
        b.supervisor?.process.enter(takeOver)
      })
      at(3_000, () => {
        arbiter.slowMs = 3
        arbiter.cutOff.clear()
      })
    },
    settledMs: 9_000,
    on: 'a',
  },
  {
    name: 'what a standby may have been granted goes back when it is removed before it hears of it',
    defect: () => void vi.spyOn(Succession.prototype, 'giveBack').mockImplementation(notAsked),
    script: (pair) => {
      const { b, at } = pair
      // Who removes it hears of no answer.
      const remove = () => void b.supervisor?.remove().catch(() => undefined)
      loseAnswers(pair, () => b.supervisor?.process.enter(remove))
      // It was removed for good.
      at(3_000, () => pair.world.network.cut())
    },
    settledMs: 14_000,
    on: 'a',
  },
  {
    name: 'what an arbiter grants that was restored between two questions is not used, and goes back',
    defect: () => void vi.spyOn(Succession.prototype, 'replaced', 'get').mockReturnValue(false),
    script: ({ world, at }) => {
      const { arbiter, network } = world
      at(400, () => arbiter.backUp())
      at(500, () => {
        network.cut()
        arbiter.cutOff.add('b')
      })
      at(2_000, () => {
        arbiter.beforeClaim = (host, generation) => {
          if (host !== 'b' || generation !== 2) return
          arbiter.beforeClaim = () => undefined
          arbiter.restore()
        }
        arbiter.cutOff.clear()
      })
      at(6_000, () => network.heal())
      // What it gave back does not stand in the way of the one who holds the same generation in truth.
      at(12_000, () => network.cut())
      at(14_000, () => network.heal())
    },
    settledMs: 18_000,
    on: 'a',
  },
]

const pairs: SimPair[] = []
afterEach(() => {
  for (const pair of pairs.splice(0)) pair.close()
  keeper.staysBroken = false
  vi.restoreAllMocks()
})

describe.each(schedules)('$name', ({ defect, script, settledMs, on }) => {
  const play = async () => {
    const pair = pairOf()
    pairs.push(pair)
    const { world, at } = pair
    script(pair)
    let seen = 0
    at(settledMs - 500, () => {
      seen = world.client.packets
    })
    const violation = await pair.runFor(settledMs).then(
      () => '',
      ({ message }: Error) => message,
    )
    const speaks = world.client.packets > seen
    const copies = world.copies.map(({ host }) => host)
    return { end: { violation, serves: speaks ? copies.join() : undefined }, log: world.log.slice(-40) }
  }

  const well = { violation: '', serves: on }

  test('all is well again', async () => {
    const { end, log } = await play()
    expect(end, log.join('\n')).toEqual(well)
  })

  test('the defect is found', async () => {
    defect()
    const { end } = await play()
    expect(end).not.toEqual(well)
  })
})

/** On the standby's host. */
function fault(
  { planned }: SimPair['world'],
  point: SimPair['world']['planned'][0]['point'],
  passingsLeft: number,
  action: 'throw' | 'kill',
): void {
  planned.push({ host: 'b', point, passingsLeft, action, forMs: 300 })
}

/** The link is cut; the standby alone is heard by the arbiter, and has no answer before that is `replaced`. */
function loseAnswers({ world, at }: SimPair, replaced: () => void): void {
  const { arbiter, network } = world
  arbiter.note = (text) => {
    if (text.includes('b: claims generation 2')) arbiter.lostAnswers = 100
  }
  at(500, () => {
    network.cut()
    arbiter.cutOff.add('a')
  })
  at(2_000, replaced)
  at(4_000, () => {
    arbiter.note = () => undefined
    arbiter.lostAnswers = 0
    arbiter.cutOff.clear()
  })
  at(6_000, () => network.heal())
}

/** The link is cut, and the primary does not reach the arbiter until the standby has been granted the guest. */
function losePrimary({ world, at }: SimPair): void {
  const { network, arbiter } = world
  at(500, () => {
    network.cut()
    arbiter.cutOff.add('a')
  })
  at(3_000, () => arbiter.cutOff.clear())
  at(5_000, () => network.heal())
}

function stopHost({ supervisor, name, world }: SimPair['a']): void {
  supervisor?.process.stop()
  for (const qemu of world.qemus) if (qemu.host === name && qemu.alive) qemu.stop()
}

function goOnHost({ supervisor, name, world }: SimPair['a']): void {
  supervisor?.process.goOn()
  for (const qemu of world.qemus) if (qemu.host === name && qemu.alive) qemu.goOn()
}
