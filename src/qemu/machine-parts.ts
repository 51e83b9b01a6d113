/**
 * What a QEMU's machine is made of at this moment. Another one loads its devices' state, and goes on as it did, only if it is made of
 * the same: so the parts of the running machine are compared with those of the waiting one.
 *
 * Three sources, for none sees everything. The sections of the device state, which each checkpoint has anyway, are exactly what has
 * to be loaded; but some devices have none (a port of virtio-serial, pvpanic-pci). QEMU's list of the devices that somebody has
 * added has those, and none that is built in. And media can be changed in a drive that stays. (Memory: plugged-memory.ts; the processor:
 * processor.ts.)
 */
import type { Difference } from '../replication/guest.ts'
import { SectionReader } from './device-sections.ts'
import { type MemoryDevice, memoryPart, PluggedMemory } from './plugged-memory.ts'
import { processorOf, processorPart } from './processor.ts'
import type { Qmp } from './qmp.ts'

/** So often QEMU is asked for what the device state does not say. */
const lookMs = 1_000

interface QomChild {
  name: string
  type: string
}

interface BlockDevice {
  device: string
  qdev?: string
  removable: boolean
  inserted?: { file: string; image?: { filename?: string } }
}

export class MachineParts {
  readonly #qmp: Qmp
  readonly #sections = new SectionReader()
  readonly memory: PluggedMemory
  #others: readonly string[] | undefined
  /** Does not change while QEMU runs. */
  #processor: readonly string[] | undefined
  #lookedAt = Number.NEGATIVE_INFINITY
  /** Found to fit: the very arrays. */
  #fitting: { sections: readonly string[] | undefined; others: unknown; parts: readonly string[] } | undefined

  constructor(qmp: Qmp, shimStatusPath: string) {
    this.#qmp = qmp
    this.memory = new PluggedMemory(shimStatusPath)
  }

  /** Asks QEMU. */
  async look(): Promise<void> {
    this.#lookedAt = performance.now()
    this.#processor ??= [await processorOf(this.#qmp)].filter((one) => one !== undefined)
    const others = [...this.#processor, ...(await this.#askOthers())]
    if (others.join('\n') !== this.#others?.join('\n')) this.#others = others
  }

  /** @param state saved just now */
  of(state: Buffer): string[] {
    return this.#all(this.#sections.read(state))
  }

  /**
   * What this machine has more or less than one that is made of `parts`; undefined: it would load the state. What the state does not
   * say is what QEMU said last, a second ago.
   */
  misfit(state: Buffer, parts: readonly string[]): Difference | undefined {
    this.#refresh()
    const what = this.#deviceMisfit(state, parts)
    const { difference } = this.memory
    return what === undefined || difference?.lasting ? difference : { what, lasting: false }
  }

  #deviceMisfit(state: Buffer, parts: readonly string[]): string | undefined {
    const sections = this.#sections.read(state)
    const fitting = this.#fitting
    if (fitting?.parts === parts && fitting.sections === sections && fitting.others === this.#others)
      return undefined
    // A standby of an older release does not say which processor it has.
    const told = parts.some(isProcessor)
    const own = this.#all(sections).filter((part) => told || !isProcessor(part))
    const found = difference(own, this.#others ? parts : parts.filter(isSection))
    if (found === undefined) this.#fitting = { sections, others: this.#others, parts }
    return found
  }

  async #askOthers(): Promise<string[]> {
    const [named, nameless, drives, { slots }, plugged] = (await Promise.all(
      this.#qmp.pipeline([
        { execute: 'qom-list', arguments: { path: '/machine/peripheral' } },
        { execute: 'qom-list', arguments: { path: '/machine/peripheral-anon' } },
        { execute: 'query-block' },
        { execute: 'qom-get', arguments: { path: '/machine', property: 'memory' } },
        { execute: 'query-memory-devices' },
      ]),
    )) as [QomChild[], QomChild[], BlockDevice[], { slots?: number }, MemoryDevice[]]
    this.memory.looked(slots ?? 0, plugged)
    return [
      ...childrenOf(named).map(({ name, driver }) => `device ${name} (${driver})`),
      // Their numbers say in which order they came.
      ...childrenOf(nameless).map(({ driver }) => `device ${driver}`),
      // Other ones may have their names, or their places.
      ...plugged.map(memoryPart),
      ...drives
        .filter(({ removable }) => removable)
        .map(({ device, qdev, inserted }) => {
          const medium = inserted?.image?.filename ?? inserted?.file ?? 'no medium'
          return `drive ${device || qdev} with ${medium}`
        }),
    ].sort()
  }

  #all(sections: readonly string[] | undefined): string[] {
    return [...(sections ?? []).map(section), ...(this.#others ?? [])]
  }

  /** Nobody waits for it: a QEMU that gives no answer is seen elsewhere. */
  #refresh(): void {
    if (performance.now() < this.#lookedAt + lookMs) return
    // It ends, or cannot be asked: the next look is in a second.
    this.look().catch(() => undefined)
  }
}

const section = (name: string) => `state of ${name}`
const isProcessor = (part: string) => part.startsWith(processorPart)
const isSection = (part: string) => part.startsWith('state of ')

const childrenOf = (listed: QomChild[]) =>
  listed.flatMap(({ name, type }) => {
    const driver = /^child<(.+)>$/.exec(type)?.[1]
    return driver === undefined ? [] : [{ name, driver }]
  })

/** Undefined: none. */
function difference(has: readonly string[], wanted: readonly string[]): string | undefined {
  const [more, less] = [without(has, wanted), without(wanted, has)]
  if (more.length + less.length === 0) return undefined
  return [
    ...(more.length > 0 ? [`it has now: ${more.join(', ')}`] : []),
    ...(less.length > 0 ? [`it has no more: ${less.join(', ')}`] : []),
  ].join('; ')
}

/** Each as often as it is more often in one than in the other. */
function without(these: readonly string[], those: readonly string[]): string[] {
  const left = new Map<string, number>()
  for (const one of those) left.set(one, (left.get(one) ?? 0) + 1)
  return these.filter((one) => {
    const count = left.get(one) ?? 0
    left.set(one, count - 1)
    return count <= 0
  })
}
