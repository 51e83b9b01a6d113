/**
 * The sections of a device state that QEMU has saved, one for each device that has a state. A machine loads a state only if it has
 * exactly these devices, so the list says whether one was plugged in or out.
 *
 * Format: QEMU's docs/devel/migration.rst. After a header of 8 bytes, sections of type 4: id u32, length u8 and name, instance u32,
 * version u32, content, and a footer, 0x7e and the id again; a 0 ends it. The content has no length, so its end is the footer that is
 * followed by another section or the end.
 */

const headerBytes = 8
const fullSection = 4
const footer = 0x7e
const end = 0
/** Type, id, length of the name; instance and version behind the name. */
const [beforeName, afterName] = [6, 8]

interface Section {
  at: number
  name: string
}

/** @returns undefined when it is not written so (a machine type without footers) */
function sectionsOf(state: Buffer): Section[] | undefined {
  const sections: Section[] = []
  let at = headerBytes
  while (at < state.length && state[at] !== end) {
    const name = sectionAt(state, at)
    if (name === undefined) return undefined
    sections.push({ at, name })
    const next = endOf(state, at)
    if (next === undefined) return undefined
    at = next
  }
  return at === state.length - 1 ? sections : undefined
}

/** Its name, with the number of its instance; undefined: no section begins there. */
function sectionAt(state: Buffer, at: number): string | undefined {
  const length = state[at + beforeName - 1] ?? 0
  const nameEnd = at + beforeName + length
  if (state[at] !== fullSection || length === 0 || nameEnd + afterName > state.length) return undefined
  const name = state.toString('latin1', at + beforeName, nameEnd)
  if (!/^[ -~]+$/.test(name)) return undefined
  const instance = state.readUInt32BE(nameEnd)
  return instance === 0 ? name : `${name} ${instance}`
}

/** Where what follows the section begins. */
function endOf(state: Buffer, at: number): number | undefined {
  const mark = Buffer.concat([Buffer.of(footer), state.subarray(at + 1, at + 5)])
  for (let found = at; ; ) {
    found = state.indexOf(mark, found + 1)
    if (found < 0) return undefined
    const next = found + mark.length
    if (next === state.length - 1 && state[next] === end) return next
    if (sectionAt(state, next) !== undefined) return next
  }
}

/** Reads one state after the other. Almost always the sections are where they were, and only that is looked at. */
export class SectionReader {
  #names: readonly string[] = []
  #heads: { at: number; head: Buffer }[] = []
  #bytes = -1

  /**
   * Names of the devices in a state, sorted; the same array while they do not change.
   * @returns undefined when the state is not written in sections that can be told apart
   */
  read(state: Buffer): readonly string[] | undefined {
    if (state.length === this.#bytes && this.#heads.every(({ at, head }) => isAt(state, at, head)))
      return this.#names
    const sections = sectionsOf(state)
    if (!sections) return undefined
    this.#bytes = state.length
    this.#heads = sections.map(({ at }) => ({
      at,
      head: Buffer.from(state.subarray(at, at + beforeName + state[at + beforeName - 1]! + afterName)),
    }))
    const names = sections.map(({ name }) => name).sort()
    if (names.join('\n') !== this.#names.join('\n')) this.#names = names
    return this.#names
  }
}

const isAt = (state: Buffer, at: number, head: Buffer) => head.compare(state, at, at + head.length) === 0
