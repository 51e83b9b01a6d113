/** What a loss of power must not undo, and what it leaves: a host's identity, and the generation of a guest. */
import fs, {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { claimantOf } from '../../src/agent/supervisor/host.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { type GuestRecord, readRecord } from '../../src/qemu/guest-record.ts'
import { KeptRecord } from '../../src/qemu/kept-record.ts'
import { replaceInPlace, syncToDisk } from '../../src/qemu/room.ts'
import { FileArbiter } from '../../src/replication/arbiters/file.ts'
import { Succession } from '../../src/replication/succession.ts'
import { ScriptedArbiter } from '../replication/scripted-host.ts'

function directory(): string {
  const path = mkdtempSync(join(tmpdir(), 'subpage-durable-'))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}

test('the identity of a host stays, and is of this host alone', () => {
  const [one, other] = [directory(), directory()]
  const claimant = claimantOf(one, 'north')
  expect(claimant).toMatch(/^north-[0-9a-f]{8}$/)
  expect(claimantOf(one, 'north')).toBe(claimant)
  expect(claimantOf(other, 'north')).not.toBe(claimant)
})

test.each([0, 1, 7, 8, 20, 35])('one that was cut short after %i bytes is refused, by name', (bytes) => {
  const path = directory()
  claimantOf(path, 'north')
  const file = join(path, 'host-id')
  truncateSync(file, bytes)
  expect(() => claimantOf(path, 'north')).toThrowError(
    expect.objectContaining({ code: 'STATE_DAMAGED', message: expect.stringContaining(file) }),
  )
  // Refused, not replaced: who knows who the arbiter takes us for.
  expect(readFileSync(file).length).toBe(bytes)
  rmSync(file)
  expect(claimantOf(path, 'north')).toMatch(/^north-[0-9a-f]{8}$/)
})

test('zeros in its place are no identity either', () => {
  const path = directory()
  writeFileSync(join(path, 'host-id'), Buffer.alloc(37))
  expect(() => claimantOf(path, 'north')).toThrowError(expect.objectContaining({ code: 'STATE_DAMAGED' }))
})

test('what was cut short before it had its name is made anew', () => {
  const path = directory()
  writeFileSync(join(path, 'host-id.next'), '0123')
  expect(claimantOf(path, 'north')).toMatch(/^north-[0-9a-f]{8}$/)
})

test.each(['', '{"format":1,', '\0'.repeat(4096)])(
  'a record that was cut short is an error that names it',
  (text) => {
    const files = guestFiles(directory(), 'kept')
    mkdirSync(files.directory, { recursive: true })
    writeFileSync(files.record, text)
    expect(() => readRecord(files)).toThrowError(
      expect.objectContaining({ code: 'STATE_DAMAGED', message: expect.stringContaining(files.record) }),
    )
  },
)

test('a record of an earlier release: it knew of NUMA nodes only, and of no disks', () => {
  const files = guestFiles(directory(), 'kept')
  mkdirSync(files.directory, { recursive: true })
  const machine = {
    type: 'q35',
    ramBytes: 2 ** 26,
    accel: 'tcg',
    nodes: [2 ** 25, 2 ** 25],
    options: [],
    nics: [],
  }
  const about = {
    id: 'x',
    generation: 1,
    arbitrated: false,
    name: 'kept',
    qemuVersion: '7.2',
    waiting: false,
  }
  writeFileSync(
    files.record,
    JSON.stringify({ format: 1, ...about, machine, process: { pid: 1, startTime: '1' } }),
  )
  expect(readRecord(files)?.machine).toMatchObject({ disks: [], backends: [2 ** 25, 2 ** 25] })
})

/** What all open files have in common. */
async function fileHandles(): Promise<FileHandle> {
  await using handle = await open('/dev/null')
  return Object.getPrototypeOf(handle)
}

/** What was synced while `work` was done, by its last name, in order. */
async function synced(work: () => unknown): Promise<string[]> {
  const names: string[] = []
  const note = (fd: number) =>
    names.push(
      basename(readlinkSync(`/proc/self/fd/${fd}`)).replace(/[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}/, 'ID'),
    )
  const prototype = await fileHandles()
  const { sync } = prototype
  const { fsyncSync } = fs
  const spy = vi.spyOn(prototype, 'sync').mockImplementation(async function (this: FileHandle) {
    note(this.fd)
    await sync.call(this)
  })
  fs.fsyncSync = (fd) => {
    note(fd)
    fsyncSync(fd)
  }
  syncBuiltinESMExports()
  try {
    await work()
  } finally {
    spy.mockRestore()
    fs.fsyncSync = fsyncSync
    syncBuiltinESMExports()
  }
  return names
}

test('file and name are on the disk when it says so', async () => {
  const folder = directory()
  const path = join(folder, 'record')
  replaceInPlace(path, 'one')
  expect(
    await synced(async () => {
      replaceInPlace(path, 'two')
      await syncToDisk(path)
    }),
  ).toEqual(['record', basename(folder)])
  expect(readFileSync(path, 'utf8').trim()).toBe('two')
})

test('so is the identity of a host before anybody hears of it', async () => {
  const folder = directory()
  expect(await synced(() => claimantOf(folder, 'north'))).toEqual(['host-id.next', basename(folder)])
  expect(await synced(() => claimantOf(folder, 'north'))).toEqual([])
})

test('so is the generation of a guest, and a disk that fails is told of', async () => {
  const files = guestFiles(directory(), 'kept')
  const told: string[] = []
  const kept = new KeptRecord(files, { name: 'kept', generation: 1 } as GuestRecord, (text) =>
    told.push(text),
  )
  expect(await synced(() => kept.writeDown({ generation: 2 }))).toEqual(['guest.json', 'kept'])
  expect(JSON.parse(readFileSync(files.record, 'utf8'))).toEqual({ name: 'kept', generation: 2 })
  const broken = vi.spyOn(await fileHandles(), 'sync').mockRejectedValue(new Error('EIO: i/o error, fsync'))
  onTestFinished(() => broken.mockRestore())
  await kept.writeDown({ generation: 3 })
  expect(told).toEqual([expect.stringMatching(/EIO/)])
  expect(kept.record.generation).toBe(3)
})

test('what has happened is so, and people are told once, when the record cannot be written', async () => {
  const files = guestFiles(directory(), 'kept')
  const told: string[] = []
  const kept = new KeptRecord(files, { name: 'kept', generation: 1 } as GuestRecord, (text) =>
    told.push(text),
  )
  kept.update({ generation: 2 })
  rmSync(files.directory, { recursive: true })
  writeFileSync(files.directory, 'in its place')
  // Asked for by somebody, who hears that it was not done.
  expect(() => kept.update({ generation: 3 })).toThrow()
  expect(kept.record.generation).toBe(2)
  await kept.writeDown({ generation: 4 })
  kept.note({ waiting: false })
  expect(kept.record).toMatchObject({ generation: 4, waiting: false })
  expect(told).toHaveLength(1)
})

test('so is a decision of the arbiter, for whoever made it and for whoever only asks', async () => {
  const folder = directory()
  const [one, other] = [new FileArbiter(folder), new FileArbiter(folder)]
  onTestFinished(() => {
    one.close()
    other.close()
  })
  const guest = '00000000-0000-4000-8000-000000000000'
  // The folder of the guest; the decision, before it has its name; its name.
  expect(await synced(() => one.claim(guest, 2, 'north-01234567'))).toEqual([
    basename(folder),
    '.claim-ID',
    'ID',
    // Looked at afterwards, as by whoever only asks.
    'ID',
  ])
  expect(await synced(() => other.holder(guest, 2))).toEqual(['ID'])
})

test('a generation is granted to us when it is written down, not before', async () => {
  const arbiter = new ScriptedArbiter()
  let written: () => void = () => undefined
  const saving = new Promise<void>((resolve) => {
    written = resolve
  })
  const guest = '00000000-0000-4000-8000-000000000000'
  const succession = new Succession({
    ...{ guest, claimant: 'a', generation: 1, arbiter, arbitrated: true },
    save: () => saving,
  })
  await succession.anchor()
  let granted = false
  const claim = succession.claim().then(() => {
    granted = true
  })
  await expect.poll(() => succession.generation).toBe(2)
  await new Promise(setImmediate)
  expect(granted).toBe(false)
  written()
  await claim
  expect(granted).toBe(true)
})
