/**
 * Output commit: what a guest sends waits in QEMU until the checkpoint that includes it is committed. Two of QEMU's
 * filter-buffers are chained on each network backend; packets meet `fresh` first, then `held`, and a buffer that is off
 * lets everything pass. So there are three states:
 *
 *   free        held off, fresh off
 *   collecting  held on,  fresh off   what is sent gathers in `held`
 *   sealed      held on,  fresh on    `held` has what was sent before the pause, `fresh` what was sent since
 *
 * hold: free -> collecting. seal, in the pause: collecting -> sealed, by one short command. A checkpoint that failed
 * leaves it sealed; the next seal empties `fresh` into `held` first. release, with the commit in hand: empties `held`
 * into the network, then `fresh` into `held`, and is collecting again; in between the other buffer is on, so nothing slips
 * through. Turning a buffer off empties it, in order, also while the guest stands still.
 *
 * QEMU executes a release when it comes to it, so the fence says until when that may be; from `hold` to the first release
 * nothing may leave at all.
 *
 * QEMU requires a time after which a buffer empties by itself. It counts time in which the guest runs, from when the
 * buffer was last turned on, and 4000 s (66 min) is near the largest: held outputs must be committed or freed, or the guest
 * ended, before that; what it empties by itself the fence drops. A buffer takes 10,000 packets; more are dropped, as by a network that is overloaded.
 */
import type { Fence } from './fence.ts'
import type { Qmp, QmpCommand } from './qmp.ts'

const selfReleaseUs = 4_000_000_000

/** Short names: QEMU handles what it is told byte by byte, some µs each (native/shim/read_ahead.c). */
type Buffer = 'held' | 'fresh'
const id = (buffer: Buffer, index: number) => `${buffer}${index}`

/** QEMU's options: the buffers of these network backends, all off. */
export function bufferOptions(netdevs: string[]): string[] {
  // Packets of the guest meet the filters in reverse order of creation.
  return netdevs.flatMap((netdev, index) =>
    (['held', 'fresh'] as const).flatMap((buffer) => [
      '-object',
      `filter-buffer,id=${id(buffer, index)},netdev=${netdev},queue=rx,interval=${selfReleaseUs},status=off`,
    ]),
  )
}

/** The same buffers, of a QEMU that somebody else has started without them; those that it has stay, if they are of the same card. */
export async function addBuffers(qmp: Qmp, netdevs: string[]): Promise<void> {
  const there = await qmp.run<{ name: string }[]>('qom-list', { path: '/objects' })
  for (const [index, netdev] of netdevs.entries())
    for (const buffer of ['held', 'fresh'] as const) {
      const name = id(buffer, index)
      if (there.some((object) => object.name === name)) {
        const of = await qmp.run<string>('qom-get', { path: `/objects/${name}`, property: 'netdev' })
        if (of === netdev) continue
        // A card has been plugged out, or in, before it.
        await qmp.run('object-del', { id: name })
      }
      await qmp.run('object-add', {
        ...{ 'qom-type': 'filter-buffer', id: name, netdev, queue: 'rx' },
        ...{ interval: selfReleaseUs, status: 'off' },
      })
    }
}

export class OutputBuffers {
  readonly #qmp: Qmp
  readonly #netdevs: number
  readonly #fence: Fence
  #state: 'free' | 'collecting' | 'sealed' = 'free'

  /** Of a QEMU that was just started. @param netdevs how many network backends it has */
  constructor(qmp: Qmp, netdevs: number, fence: Fence) {
    this.#qmp = qmp
    this.#fence = fence
    this.#netdevs = netdevs
  }

  /** Whether what the guest sends waits for a commit. */
  get held(): boolean {
    return this.#state !== 'free'
  }

  /** Of a QEMU that another agent used: finds out where that one left it. What waits there goes on waiting. */
  async readBack(): Promise<void> {
    const statuses = await this.#all((index) =>
      (['held', 'fresh'] as const).map((buffer) => ({
        execute: 'qom-get',
        arguments: { path: `/objects/${id(buffer, index)}`, property: 'status' },
      })),
    )
    if (!statuses.includes('on')) return
    // Whichever was on: from here on it is as after a pause whose checkpoint failed.
    this.#state = 'sealed'
    this.#fence.speakUntil(0)
    await Promise.all([this.#set('held', 'on'), this.#set('fresh', 'on')])
  }

  async hold(): Promise<void> {
    if (this.#state !== 'free') return
    this.#state = 'collecting'
    await this.#set('held', 'on').catch(async (error) => {
      // The cards where it is on are let go; the one where it failed fails again. Who asks once more is told once more.
      await this.free().catch(() => undefined)
      throw error
    })
    this.#fence.speakUntil(0)
  }

  /** Nobody else can go on with the guest. */
  async free(): Promise<void> {
    if (this.#state === 'free') return
    this.#state = 'free'
    this.#fence.speakUntil(Number.POSITIVE_INFINITY)
    await Promise.all([this.#set('fresh', 'off'), this.#set('held', 'off')])
  }

  /** The commands that draw the line in a pause; to be written with those that make it. */
  seal(): QmpCommand[] {
    if (this.#state === 'free') return []
    const mend = this.#state === 'sealed' ? this.#commands('fresh', 'off') : []
    this.#state = 'sealed'
    return [...mend, ...this.#commands('fresh', 'on')]
  }

  /**
   * Resolves when everything from before the last pause is on its way.
   * @param untilMs what leaves later than that, by the clock, is dropped
   */
  async release(untilMs: number): Promise<void> {
    if (this.#state !== 'sealed') return
    this.#state = 'collecting'
    this.#fence.speakUntil(untilMs)
    const out = this.#set('held', 'off')
    // These only fail when QEMU has ended, which is noticed elsewhere.
    Promise.all([this.#set('held', 'on'), this.#set('fresh', 'off')]).catch(() => undefined)
    await out
  }

  #set(buffer: Buffer, status: 'on' | 'off'): Promise<unknown> {
    return Promise.all(this.#qmp.pipeline(this.#commands(buffer, status)))
  }

  #commands(buffer: Buffer, status: 'on' | 'off'): QmpCommand[] {
    return Array.from({ length: this.#netdevs }, (_, index) => ({
      execute: 'qom-set',
      arguments: { path: `/objects/${id(buffer, index)}`, property: 'status', value: status },
    }))
  }

  #all(commands: (index: number) => QmpCommand[]): Promise<unknown[]> {
    return Promise.all(
      this.#qmp.pipeline(Array.from({ length: this.#netdevs }, (_, index) => commands(index)).flat()),
    )
  }
}
