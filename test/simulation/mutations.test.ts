/** The simulator can fail: each of these defects, put in on purpose, is found within a few hundred schedules. */
import { afterEach, describe, expect, test, vi } from 'vitest'
import { applySync } from '../../src/delta/apply.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import type { Faults } from '../../src/replication/fault.ts'
import type { FrameType } from '../../src/replication/frame.ts'
import type { Image } from '../../src/replication/image.ts'
import type { StandbyMachine } from '../../src/replication/standby-state.ts'
import { Succession } from '../../src/replication/succession.ts'
import { simulateMany } from './run-many.ts'
import type { Broken, SimWorld } from './sim-world.ts'

const keeper = vi.hoisted(() => ({ appliesParts: false, neverForgets: false }))

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

/** Does not ask anybody. */
class Reckless extends Succession {
  override async claim(): Promise<undefined> {
    await this.adopt(this.generation + 1)
    return undefined
  }
}

/** Keeps what it was granted and cannot use. */
class Keeping extends Succession {
  override async giveBack(): Promise<void> {}
  override async giveBackLeft(): Promise<void> {}
}

afterEach(() => {
  Object.assign(keeper, { appliesParts: false, neverForgets: false })
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
    expect(await finds({ Succession: Reckless })).toMatch(unsafe)
  })

  test('outputs leave before the acknowledgement', async () => {
    expect(await finds({ releaseEarly: true })).toMatch(unsafe)
  })

  test('outputs are not held', async () => {
    expect(await finds({ forgetHolding: true })).toMatch(unsafe)
  })

  test('a release is executed however late', async () => {
    expect(await finds({ openFence: true }, 630)).toMatch(/speaks for the guest, at step .* took it over/)
  })

  test('an equal boot id counts as proof that processes can be seen', async () => {
    const settings = { sameMachine: true, apart: true, outputs: 'free' } as const
    expect(await finds({ trustBootId: true, settings })).toMatch(/took the guest over by itself/)
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
        const { agent } = world.host('b')
        agent?.process.enter(() => void agent.remove().catch(() => undefined)) // It may have taken over.
      })
    }
    expect(await finds({ Succession: Keeping, settings, disturb })).toBe(
      'the guest is gone, and nothing has killed it',
    )
  })

  test('a pause that the guard has broken counts', async () => {
    expect(await finds({ trustBrokenPause: true }, 1700)).toMatch(unsafe)
  })

  test('pages of a checkpoint that failed are forgotten', async () => {
    vi.spyOn(PageRanges.prototype, 'union').mockReturnValue(PageRanges.empty)
    expect(await finds({}, 360)).toMatch(unsafe)
  })

  test('a checkpoint is applied before it is whole', async () => {
    keeper.appliesParts = true
    expect(await finds({}, 510)).toMatch(unsafe)
  })

  test('a checkpoint outlives the decision of the primary to go on without it', async () => {
    keeper.neverForgets = true
    expect(await finds()).toMatch(unsafe)
  })
})
