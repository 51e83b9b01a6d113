/**
 * The judge. It keeps the history of the guest: every step of every copy, each with the step before it. A client may see
 * answers from one line of that history only: whoever is ahead of what it has seen, or a late packet from behind. What a
 * standby takes over must be one whole step, and no older than what was seen.
 */
import type { Region } from '../../src/memory/region.ts'

export interface Step {
  /** Also the content: no other step writes the same. */
  id: number
  parent: Step | undefined
  depth: number
  /** For each slot of memory, which step wrote it last. */
  wrote: Uint32Array
}

export const slotsPerPage = 4
const slotBytes = 12

export class Violation extends Error {}

export class SimClient {
  readonly #steps: Step[] = []
  readonly #slots: number
  /** The newest step that has been seen. */
  seen: Step
  packets = 0

  constructor(pages: number) {
    this.#slots = pages * slotsPerPage
    const wrote = new Uint32Array(this.#slots)
    this.seen = { id: 0, parent: undefined, depth: 0, wrote }
    this.#steps.push(this.seen)
  }

  get first(): Step {
    return this.#steps[0]!
  }

  /** The guest makes a step: writes some slots, in its memory and in the history. */
  grow(parent: Step, slots: Iterable<number>, ram: Region): Step {
    const wrote = parent.wrote.slice()
    const step: Step = { id: this.#steps.length, parent, depth: parent.depth + 1, wrote }
    this.#steps.push(step)
    for (const slot of slots) {
      wrote[slot] = step.id
      ram.write(placeOf(slot), contentOf(step.id, slot))
    }
    return step
  }

  find(id: number): Step {
    const step = this.#steps[id]
    if (!step) throw new Violation(`there is no step ${id}`)
    return step
  }

  /** A packet reaches the client. */
  receive(step: Step): void {
    this.packets++
    if (isAncestor(this.seen, step)) this.seen = step
    else if (!isAncestor(step, this.seen))
      throw new Violation(
        `a client saw step ${step.id} (depth ${step.depth}) after step ${this.seen.id} (depth ${this.seen.depth}): they are of different histories`,
      )
  }

  /** @returns whether everything that was seen is in it */
  includesSeen(step: Step): boolean {
    return isAncestor(this.seen, step)
  }

  /** The memory must be that of the step, whole. */
  checkWhole(step: Step, ram: Region): void {
    const bytes = ram.read(0, ram.bytes)
    const view = new DataView(bytes.buffer)
    for (let slot = 0; slot < this.#slots; slot++) {
      const found = view.getUint32(placeOf(slot), true)
      const expected = step.wrote[slot]!
      if (found !== expected)
        throw new Violation(
          `memory is torn: at step ${step.id} slot ${slot} (page ${Math.floor(slot / slotsPerPage)}) is of step ${found}, not ${expected}`,
        )
    }
  }
}

/** Slots of a page are spread over its lines. */
const placeOf = (slot: number) => Math.floor(slot / slotsPerPage) * 4096 + (slot % slotsPerPage) * 1024 + 20

function contentOf(id: number, slot: number): Uint8Array {
  const bytes = new Uint8Array(slotBytes)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, id, true)
  view.setUint32(4, ~id, true)
  view.setUint32(8, slot, true)
  return bytes
}

function isAncestor(old: Step, young: Step): boolean {
  let at: Step | undefined = young
  while (at && at.depth > old.depth) at = at.parent
  return at === old
}
