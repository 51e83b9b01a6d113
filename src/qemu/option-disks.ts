/**
 * Takes the writable disks out of the options after `--`, so that they are protected as those of `--disk` are: a -drive, or a chain of
 * -blockdev, becomes a disk, and the -device that has it stays. What another host cannot take over is refused with the reason.
 */
import { realpathSync } from 'node:fs'
import { type Disk, type DiskRequest, writesThrough } from './disk.ts'
import { blockdevIsWritable, driveIsWritable } from './disk-policy.ts'
import { assignIdeSlots, type IdeSlot } from './ide-slots.ts'
import { type GivenOption, refuse } from './option-policy.ts'
import { doubleCommas, type OptionPart, parseOption } from './option-syntax.ts'
import { fileRefusal, readBlockdev, readDrive, type WrittenDisk } from './written-disk.ts'

export interface TakenOptions {
  options: string[]
  disks: DiskRequest[]
}

interface Device {
  option: GivenOption
  parts: OptionPart[]
}

/**
 * @param sata numbers of the IDE buses that disks of `--disk` have
 * @throws SubpageError GUEST_UNPROTECTABLE, naming the option and the reason
 */
export function takeDisks(given: GivenOption[], sata: number[]): TakenOptions {
  const options = given.map((option) => ({ ...option }))
  const written = writtenDisks(options)
  const machine = options.find(({ flag }) => flag === '-M' || flag === '-machine')?.value ?? 'q35'
  const slots = assignIdeSlots(options, written, machine.replace(/^type=/, ''), sata)
  const rest = options.filter((option) => !written.some(({ from }) => from.includes(option)))
  const devices = rest.flatMap((option) =>
    option.flag === '-device' ? [{ option, parts: parseOption(option.value ?? '') }] : [],
  )
  refuseReadTwice(written, rest)
  const added: string[] = []
  const disks = written.map((disk) => {
    const slot = slots.get(disk)
    if (slot) added.push('-device', ideDevice(disk, slot))
    else if (disk.bus === undefined) return { ...requestOf(disk), ...withDevice(disk, devices) }
    return requestOf(disk)
  })
  const words = rest.flatMap(({ flag, value }) => (value === undefined ? [flag] : [flag, value]))
  return { options: [...words, ...added], disks }
}

function writtenDisks(options: GivenOption[]): WrittenDisk[] {
  const parsed = (flag: string, isWritable: (parts: OptionPart[]) => boolean) =>
    options.flatMap((option) => {
      const value = option.value ?? ''
      const parts = option.flag === flag && !value.startsWith('{') ? parseOption(value) : undefined
      return parts && isWritable(parts) ? [{ option, parts }] : []
    })
  const drives = parsed('-drive', driveIsWritable).map(({ option, parts }) => readDrive(option, parts))
  const written = [...drives, ...readBlockdev(parsed('-blockdev', blockdevIsWritable))]
  for (const { id, name } of written)
    if (id !== undefined && written.filter((other) => other.id === id).length > 1)
      refuse(name, `two disks have the name ${id}`)
  return written
}

function requestOf({ id, path, bus, shape }: WrittenDisk): DiskRequest {
  const name = id !== undefined && /^[A-Za-z0-9][A-Za-z0-9_-]{0,15}$/.test(id) ? { name: id } : {}
  return { path, ...name, ...shape, ...(bus === undefined ? { drive: id } : { bus }) } as DiskRequest
}

const ideDevice = ({ id, shape, errors }: WrittenDisk, { bus, unit }: IdeSlot) =>
  [
    `ide-hd,bus=ide.${bus},unit=${unit},drive=${id}`,
    ...(writesThrough(shape.cache) ? ['write-cache=off'] : []),
    ...errorWords(errors),
  ].join(',')

const errorWords = (errors: WrittenDisk['errors']) =>
  Object.entries(errors).map(([key, value]) => `${key}=${value}`)

/** Finds the device of a disk, and tells it what -drive would have. */
function withDevice(disk: WrittenDisk, devices: Device[]): Partial<Disk> {
  const { id, name } = disk
  if (id === undefined) return refuse(name, 'no -device can have it: give it a name (id=, node-name=)')
  const own = devices.filter(({ parts }) => wordOf(parts, 'drive') === id)
  const [device] = own
  if (!device) return refuse(name, `no -device has it; add one with drive=${id}`)
  if (own.length > 1) refuse(name, 'two devices have it')
  const { option, parts } = device
  if (wordOf(parts, 'share-rw') === 'on')
    refuse(`${option.flag} ${option.value}`, 'share-rw=on: somebody else would write to the disk as well')
  for (const key of ['werror', 'rerror'])
    if (wordOf(parts, key) === 'ignore')
      refuse(`${option.flag} ${option.value}`, `${key}=ignore: what is lost would not be noticed`)
  const words = [
    ...(writesThrough(disk.shape.cache) && !wordOf(parts, 'write-cache') ? ['write-cache=off'] : []),
    ...errorWords(disk.errors).filter((word) => !wordOf(parts, word.slice(0, word.indexOf('=')))),
  ]
  if (words.length > 0) option.value = [option.value, ...words].join(',')
  return hasThread(parts, devices) ? { iothread: true } : {}
}

/** A disk on virtio-scsi has the thread of its controller. */
function hasThread(parts: OptionPart[], devices: Device[]): boolean {
  const threaded = (of: OptionPart[]) => wordOf(of, 'iothread') !== undefined
  if (threaded(parts)) return true
  return parts[0]?.value === 'scsi-hd' && devices.some((device) => threaded(device.parts))
}

const wordOf = (parts: OptionPart[], wanted: string) => parts.find(({ key }) => key === wanted)?.value

/** What is written by one disk must not be read by another: QEMU's locks would refuse it, in words of their own. */
function refuseReadTwice(written: WrittenDisk[], rest: GivenOption[]): void {
  const files = new Map(written.map(({ path, name }) => [realPath(path), name]))
  for (const { flag, value = '' } of rest) {
    if (!['-drive', '-blockdev', '-cdrom'].includes(flag)) continue
    const parts = parseOption(flag === '-cdrom' ? `file=${doubleCommas(value)}` : value)
    for (const { key, value: path } of parts) {
      const isFile = key === 'file' || key === 'filename' || key === 'file.filename'
      const name = isFile && !fileRefusal(path) ? files.get(realPath(path)) : undefined
      if (name !== undefined) refuse(name, `${flag} ${value} reads the same file`)
    }
  }
}

function realPath(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    // Whether it is there is found out later.
    return path
  }
}
