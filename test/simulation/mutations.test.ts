/** The simulator can fail: each of these defects, put in on purpose, is found within a few hundred schedules. */
import { afterEach, describe, expect, test, vi } from 'vitest'
import { applySync } from '../../src/delta/apply.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import type { Faults } from '../../src/replication/fault.ts'
import type { FrameType } from '../../src/replication/frame.ts'
import type { Image } from '../../src/replication/image.ts'
import type { Hello } from '../../src/replication/messages.ts'
import type { Sight, SourceFate } from '../../src/replication/source-sight.ts'
import type { StandbyMachine } from '../../src/replication/standby-state.ts'
import { Succession } from '../../src/replication/succession.ts'
import { simulateMany } from './run-many.ts'
import type { Broken, SimWorld } from './sim-world.ts'

const keeper = vi.hoisted(() => ({ appliesParts: false, neverForgets: false }))
const sight = vi.hoisted(() => ({ trustsBootId: false }))

vi.mock('../../src/replication/source-sight.ts', async (original) => {
  const { SourceSight } = await original<typeof import('../../src/replication/source-sight.ts')>()
  class BrokenSight extends SourceSight {
    readonly #sight: Sight
    constructor(given: Sight) {
      super(given)
      this.#sight = given
    }
    override fate(hello: Hello): SourceFate | undefined {
      const { space, fate } = this.#sight
      const { bootId, process } = hello.source
      if (!sight.trustsBootId || bootId !== space()?.bootId) return super.fate(hello)
      return fate(process) === 'gone' ? 'gone' : 'runs'
    }
  }
  return { SourceSight: BrokenSight }
})

vi.mock('../../src/replication/image-keeper.ts', async (original) => {
  const { ImageKeeper } = await original<typeof import('../../src/replication/image-keeper.ts')>()
  class BrokenKeeper extends ImageKeeper {
    readonly #image: Image
    constructor(image: Image, faults: Faults, machine: StandbyMachine) {
      super(image, faults, machine)
      this.#image = image
    }
    override async hold(epoch: number, delta: Uint8Array, type: FrameType): Promise<void> {
      await super.hold(epoch, delta, type)
      if (keeper.appliesParts) applySync(this.#image.region, delta)
    }
    override forgetCheckpoint(): void {
      if (!keeper.neverForgets) super.forgetCheckpoint()
    }
  }
  return { ImageKeeper: BrokenKeeper }
})

afterEach(() => {
  Object.assign(keeper, { appliesParts: false, neverForgets: false })
  sight.trustsBootId = false
  vi.restoreAllMocks()
})

const schedulesMax = 1_200

/** Begins near the first seed that finds it: a test is to prove that it can, not to search. */
async function finds(broken: Broken = {}, firstSeed = 1): Promise<string> {
  const plain = { ...broken, plain: true }
  const { failed, schedules } = await simulateMany(firstSeed, schedulesMax, plain, true)
  console.log(
    `${schedules} schedules, seed ${failed[0]?.seed}: ${failed[0]?.failure?.message ?? 'not found'}`,
  )
  return failed[0]?.failure?.message ?? ''
}

const unsafe =
  /speaks for the guest|of different histories|without step .* that a client has seen|torn|differ/

describe('a defect is found', { timeout: 300_000 }, () => {
  test('both sides win the decision', async () => {
    vi.spyOn(Succession.prototype, 'claim').mockImplementation(async function (this: Succession) {
      await this.adopt(this.generation + 1)
      return undefined
    })
    expect(await finds()).toMatch(unsafe)
  })

  test('outputs leave before the acknowledgement', async () => {
    expect(await finds({ releaseEarly: true })).toMatch(unsafe)
  })

  test('outputs are not held', async () => {
    expect(await finds({ forgetHolding: true })).toMatch(unsafe)
  })

  test('a release is executed however late', async () => {
    expect(await finds({ openFence: true }, 660)).toMatch(/speaks for the guest, at step .* took it over/)
  })

  test('an equal boot id counts as proof that processes can be seen', async () => {
    const settings = { sameMachine: true, apart: true, outputs: 'free' } as const
    sight.trustsBootId = true
    expect(await finds({ settings })).toMatch(/took the guest over by itself/)
  })

  test('a generation that was never used is not given back', async () => {
    const settings = {
      suspicionMs: 500,
      chosen: true,
      outputs: 'held',
      sameMachine: false,
    } as const
    // The standby is removed while its claim, of which the primary knows nothing, is on its way.
    const disturb = (world: SimWorld) => {
      const { time, network, arbiter } = world
      time.after(200, () => {
        network.cut()
        arbiter.cutOff.add('a')
        arbiter.slowMs = 2_000
      })
      time.after(2_300, () => {
        const { supervisor } = world.host('b')
        supervisor?.process.enter(() => void supervisor.remove().catch(() => undefined)) // It may have taken over.
      })
    }
    vi.spyOn(Succession.prototype, 'giveBack').mockResolvedValue()
    vi.spyOn(Succession.prototype, 'giveBackLeft').mockResolvedValue()
    expect(await finds({ settings, disturb })).toBe('the guest is gone, and nothing has killed it')
  })

  test('a pause that the guard has broken counts', async () => {
    expect(await finds({ trustBrokenPause: true }, 2_800)).toMatch(unsafe)
  })

  test('pages that are not armed are not compared', async () => {
    const settings = { hotPages: { faultNs: 1000, compareNs: 100, runNs: 0 }, outputs: 'held' } as const
    expect(await finds({ vouchForHot: true, settings })).toMatch(unsafe)
  })

  test('pages of a checkpoint that failed are forgotten', async () => {
    vi.spyOn(PageRanges.prototype, 'union').mockReturnValue(PageRanges.empty)
    expect(await finds({}, 360)).toMatch(unsafe)
  })

  test('a checkpoint is applied before it is whole', async () => {
    keeper.appliesParts = true
    expect(await finds({}, 655)).toMatch(unsafe)
  })

  test('a checkpoint outlives the decision of the primary to go on without it', async () => {
    keeper.neverForgets = true
    expect(await finds({}, 420)).toMatch(unsafe)
  })
})
