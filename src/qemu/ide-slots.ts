/**
 * Where disks of -drive on IDE are: QEMU gives each the first free place, in their order, unless index= says one (blockdev.c). A disk
 * that is taken out of the options leaves its place to a device of ours, and those that stay keep theirs.
 */
import { type GivenOption, refuse } from './option-policy.ts'
import { parseOption } from './option-syntax.ts'
import type { WrittenDisk } from './written-disk.ts'

export interface IdeSlot {
  bus: number
  unit: number
}

/** QEMU's -cdrom. */
const cdromIndex = 2

/** Changes the options of those that stay. */
export function assignIdeSlots(
  options: GivenOption[],
  written: WrittenDisk[],
  machine: string,
  sata: number[],
): Map<WrittenDisk, IdeSlot> {
  const slots = new Map<WrittenDisk, IdeSlot>()
  if (!written.some(({ ide }) => ide)) return slots
  // Two on each of the two cables of a PC of 1996; one on each of the six ports of the other.
  const [units, places] = /^(pc|isapc|ubuntu|pc-i440fx-[^,]*)(,|$)/.test(machine) ? [2, 4] : [1, 6]
  const taken = new Set(sata.map((bus) => bus * units))
  const names = new Set(written.map(({ id }) => id))
  for (const option of options) {
    const { flag, value = '' } = option
    const disk = written.find(({ from, ide }) => ide && from.includes(option))
    if (flag === '-cdrom') taken.add(cdromIndex)
    if (flag !== '-drive' || (!disk && !isIde(value))) continue
    const said = disk?.index ?? indexOf(value, units)
    const index = said ?? firstFree(taken)
    if (taken.has(index) || index >= places)
      refuse(`-drive ${value}`, `this machine has no free place for it: index=${index} of ${places}`)
    taken.add(index)
    if (!disk) {
      if (said === undefined) option.value = `${value},index=${index}`
      continue
    }
    slots.set(disk, { bus: Math.floor(index / units), unit: index % units })
    disk.id ??= nameFor(index, names)
  }
  return slots
}

function isIde(value: string): boolean {
  return (parseOption(value).find(({ key }) => key === 'if')?.value ?? 'ide') === 'ide'
}

function indexOf(value: string, units: number): number | undefined {
  const parts = parseOption(value)
  const number = (wanted: string) => {
    const found = parts.find(({ key }) => key === wanted)
    return found && Number(found.value)
  }
  const [bus, unit] = [number('bus'), number('unit')]
  return (
    number('index') ??
    (bus === undefined && unit === undefined ? undefined : (bus ?? 0) * units + (unit ?? 0))
  )
}

function firstFree(taken: Set<number>): number {
  let index = 0
  while (taken.has(index)) index++
  return index
}

function nameFor(index: number, names: Set<string | undefined>): string {
  let name = `ide${index}`
  while (names.has(name)) name += 'x'
  names.add(name)
  return name
}
