/**
 * The redo journal of a standby whose checkpoints outlast a loss of power: the writes of an epoch are on stable storage here before it
 * is acknowledged, and reach the disks later. After a loss of power they are played back; absolute content in its order, so that it
 * does not matter what of it the disks have already.
 *
 *   head     4096 bytes: magic u64 · length of the text u64 · text, JSON: the disks
 *   epoch    magic u64 · epoch u64 · length of the body u64 · 0 u64 · digest of these 32 bytes and the body, 16 bytes · body
 *   body     for each frame: number of the disk u32 · length u32 · records (records.ts)
 *
 * All little endian. The first epoch that is not whole ends it: that one was not acknowledged.
 */
import { closeSync, constants, existsSync, mkdirSync, openSync, readSync, rmSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { errorCode, SubpageError } from '../errors.ts'
import { hashBytes } from '../memory/hash.ts'
import { RawDisk } from './raw-disk.ts'
import { checkDisk, chunkBytes, hashChunks } from './records.ts'

const headBytes = 4096
const headMagic = 0x314c4e4a50425553n
const epochMagic = 0x3145505050425553n
const epochHeadBytes = 32 + hashBytes
const frameHeadBytes = 8
/** Beyond, the disks are synced and it begins anew. */
const bytesMax = 64 * 2 ** 20
/** More than a standby holds for one epoch was not written by us. */
const bodyBytesMax = 2 ** 30

export interface JournalledDisk {
  path: string
  bytes: number
}

/** What of a frame is written to which disk. */
export interface JournalledWrites {
  disk: number
  bytes: number
  /** So many, each time the same. */
  records: () => Promise<Uint8Array>
}

export class RedoJournal {
  readonly #path: string
  readonly #disks: readonly RawDisk[]
  #file: FileHandle | undefined
  #end = headBytes

  /** @param disks in the order of the guest's description */
  constructor(path: string, disks: readonly RawDisk[]) {
    this.#path = path
    this.#disks = disks
  }

  /** Resolves when the writes are on stable storage. @throws the file system's own error */
  async append(epoch: number, writes: readonly JournalledWrites[]): Promise<void> {
    if (writes.length === 0) return
    if (this.#end > bytesMax) await this.clear()
    this.#file ??= await this.#open()
    const length = writes.reduce((sum, { bytes }) => sum + frameHeadBytes + bytes, 0)
    const head = Buffer.alloc(epochHeadBytes)
    head.writeBigUInt64LE(epochMagic, 0)
    head.writeBigUInt64LE(BigInt(epoch), 8)
    head.writeBigUInt64LE(BigInt(length), 16)
    const digest = new Digest(head.subarray(0, 32))
    let at = this.#end + epochHeadBytes
    for (const { disk, bytes, records } of writes) {
      const frame = Buffer.alloc(frameHeadBytes)
      frame.writeUInt32LE(disk, 0)
      frame.writeUInt32LE(bytes, 4)
      for (const part of [frame, await records()]) {
        digest.add(part)
        await writeAll(this.#file, part, at)
        at += part.length
      }
    }
    digest.end().copy(head, 32)
    await writeAll(this.#file, head, this.#end)
    await this.#file.datasync()
    this.#end = at
  }

  /** What was applied to the disks outlasts a loss of power, and nothing is played back any more. */
  async clear(): Promise<void> {
    await Promise.all(this.#disks.map((disk) => disk.sync()))
    if (!this.#file && !existsSync(this.#path)) return
    this.#file ??= await this.#open()
    await this.#file.truncate(headBytes)
    await this.#file.datasync()
    this.#end = headBytes
  }

  async remove(): Promise<void> {
    if (this.#file) {
      await Promise.all(this.#disks.map((disk) => disk.sync()))
      await this.#file.close()
    }
    this.#file = undefined
    rmSync(this.#path, { force: true })
  }

  async #open(): Promise<FileHandle> {
    mkdirSync(dirname(this.#path), { recursive: true, mode: 0o700 })
    const { O_RDWR, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants
    const file = await open(this.#path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o600)
    const text = Buffer.from(JSON.stringify(this.#disks.map(({ path, bytes }) => ({ path, bytes }))))
    const head = Buffer.alloc(headBytes)
    if (text.length > headBytes - 16) throw new RangeError('the paths of the disks are too long')
    head.writeBigUInt64LE(headMagic, 0)
    head.writeBigUInt64LE(BigInt(text.length), 8)
    text.copy(head, 16)
    await file.write(head, 0, headBytes, 0)
    await file.sync()
    const directory = await open(dirname(this.#path), 'r')
    await directory.sync().finally(() => directory.close())
    this.#end = headBytes
    return file
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, at: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, at + done)
    done += bytesWritten
  }
}

/** XXH3-128 of what stands before the digest and of each 64 KiB behind it, and of these until one is left. */
class Digest {
  readonly #hashes: Uint8Array[]
  #rest: Uint8Array = new Uint8Array(0)

  constructor(before: Uint8Array) {
    this.#hashes = [hashChunks(before)]
  }

  add(bytes: Uint8Array): void {
    const all = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes])
    const whole = all.length - (all.length % chunkBytes)
    if (whole > 0) this.#hashes.push(hashChunks(all.subarray(0, whole)))
    this.#rest = all.slice(whole)
  }

  end(): Buffer {
    if (this.#rest.length > 0) this.#hashes.push(hashChunks(this.#rest))
    let hashes = Buffer.concat(this.#hashes)
    while (hashes.length > hashBytes) hashes = Buffer.from(hashChunks(hashes))
    return hashes
  }
}

function digestOf(entry: Buffer): Buffer {
  const digest = new Digest(entry.subarray(0, 32))
  digest.add(entry.subarray(epochHeadBytes))
  return digest.end()
}

/**
 * Applies what a journal holds to its disks, and removes it. Nothing is done where there is none.
 * @param disks the same that it was written for
 * @returns the newest epoch of it; undefined: there was nothing
 * @throws SubpageError DISK_FAILED; the journal stays then
 */
export async function playBack(path: string, disks: readonly JournalledDisk[]): Promise<number | undefined> {
  let file: number
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    throw error
  }
  const opened: RawDisk[] = []
  try {
    const given = JSON.stringify(disks.map(({ path, bytes }) => ({ path, bytes })))
    const head = headOf(file)
    if (head !== undefined && head !== given) throw new Error(`${path} belongs to other disks`)
    for (const { path, bytes } of disks) opened.push(new RawDisk(path, bytes, false))
    let newest: number | undefined
    let at = headBytes
    if (head !== undefined)
      for (let entry = entryAt(file, at); entry; entry = entryAt(file, at)) {
        for (const { disk, records } of framesOf(entry.body)) await applyTo(opened[disk], records)
        newest = entry.epoch
        at += epochHeadBytes + entry.body.length
      }
    await Promise.all(opened.map((disk) => disk.sync()))
    rmSync(path)
    return newest
  } catch (cause) {
    throw new SubpageError(
      'DISK_FAILED',
      `what ${path} holds cannot be written to the disks: ${(cause as Error).message}`,
      { cause },
    )
  } finally {
    await Promise.all(opened.map((disk) => disk.close()))
    closeSync(file)
  }
}

async function applyTo(disk: RawDisk | undefined, records: Uint8Array): Promise<void> {
  if (!disk) throw new Error('it names a disk that is not there')
  checkDisk(records, 0, disk.bytes)
  await disk.apply(records, 0)
}

/** Undefined: it was not written to its end, so nothing was acknowledged of what follows. */
function headOf(file: number): string | undefined {
  const head = read(file, 0, headBytes)
  if (!head || head.readBigUInt64LE(0) !== headMagic) return undefined
  return head.subarray(16, 16 + Number(head.readBigUInt64LE(8))).toString()
}

function entryAt(file: number, at: number): { epoch: number; body: Buffer } | undefined {
  const head = read(file, at, epochHeadBytes)
  if (!head || head.readBigUInt64LE(0) !== epochMagic) return undefined
  const length = Number(head.readBigUInt64LE(16))
  if (length > bodyBytesMax) return undefined
  const entry = read(file, at, epochHeadBytes + length)
  if (!entry || digestOf(entry).compare(entry, 32, epochHeadBytes) !== 0) return undefined
  return { epoch: Number(head.readBigUInt64LE(8)), body: entry.subarray(epochHeadBytes) }
}

function framesOf(body: Buffer): { disk: number; records: Uint8Array }[] {
  const frames: { disk: number; records: Uint8Array }[] = []
  for (let at = 0; at < body.length; ) {
    const length = body.readUInt32LE(at + 4)
    const records = body.subarray(at + frameHeadBytes, at + frameHeadBytes + length)
    frames.push({ disk: body.readUInt32LE(at), records })
    at += frameHeadBytes + length
  }
  return frames
}

/** Undefined: the file is shorter. */
function read(file: number, at: number, length: number): Buffer | undefined {
  const bytes = Buffer.alloc(length)
  let done = 0
  while (done < length) {
    const got = readSync(file, bytes, done, length - done, at + done)
    if (got === 0) return undefined
    done += got
  }
  return bytes
}
