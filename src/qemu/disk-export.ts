/**
 * Reads the disks of a guest as the guest sees them, while it runs: a raw file that is written through the page cache at once;
 * others through read-only exports of QEMU's own NBD server. QEMU 7.2 aborts when a client of that server leaves whose disk has a
 * thread of its own (nbd_blockdev_client_closed asserts the main thread), so such a disk is not read.
 */
import { closeSync, constants, openSync, read } from 'node:fs'
import { NbdReader } from '../disk/nbd-reader.ts'
import { type ChunkRange, chunkBytes, hashChunks, hashDisk } from '../disk/records.ts'
import { SubpageError } from '../errors.ts'
import { hashBytes } from '../memory/hash.ts'
import type { DiskReader } from '../replication/disks.ts'
import { type Disk, diskNode } from './disk.ts'
import type { Qmp } from './qmp.ts'

/** Read at a time. */
const pieceChunks = 16

interface Source {
  hashes(range: ChunkRange): Promise<Uint8Array>
  read(range: ChunkRange): Promise<Uint8Array>
  close(): void
}

/**
 * @param path of QEMU's socket, while it is open
 * @param serves whatever is read from there, QEMU's server runs
 * @throws SubpageError DISK_FAILED
 */
export async function openExports(
  qmp: Qmp,
  path: string,
  disks: readonly Disk[],
  serves = false,
): Promise<DiskReader> {
  const sources: (Source | undefined)[] = []
  const exported = serves || disks.some((disk) => wayOf(disk) === 'export')
  // Ends its exports, also those that a former supervisor has left. There may be no server.
  const stop = async () => (exported ? await qmp.run('nbd-server-stop').catch(() => undefined) : undefined)
  const close = async () => {
    for (const source of sources) source?.close()
    await stop()
  }
  try {
    await stop()
    if (exported) await qmp.run('nbd-server-start', { addr: { type: 'unix', data: { path } } })
    for (const disk of disks) {
      const way = wayOf(disk)
      if (way === 'none') sources.push(undefined)
      else sources.push(way === 'file' ? fileOf(disk) : await exportOf(disk, qmp, path))
    }
  } catch (cause) {
    await close()
    throw failed(cause)
  }
  const from = async (disk: number, take: (source: Source) => Promise<Uint8Array>) => {
    const source = sources[disk]
    if (!source) throw new TypeError(`disk ${disk} cannot be read`)
    return await take(source).catch((cause) => {
      throw failed(cause)
    })
  }
  return {
    missing: (disk) =>
      sources[disk]
        ? undefined
        : 'QEMU cannot let a disk be read that has a thread of its own and is not a raw one with a cache',
    hashes: (disk, range) => from(disk, (source) => source.hashes(range)),
    read: (disk, range) => from(disk, (source) => source.read(range)),
    [Symbol.asyncDispose]: close,
  }
}

/** What bypasses the page cache may leave something older there for whoever reads through it. */
export function wayOf({ format, cache = 'writeback', iothread }: Disk): 'file' | 'export' | 'none' {
  if (format === 'raw' && (cache === 'writeback' || cache === 'writethrough')) return 'file'
  return iothread === true ? 'none' : 'export'
}

function fileOf({ path, bytes }: Disk): Source {
  const file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  return {
    hashes: (range) => hashDisk(file, bytes, range),
    read: async (range) => await readChunks(file, bytes, range),
    close: () => closeSync(file),
  }
}

async function exportOf(disk: Disk, qmp: Qmp, path: string): Promise<Source> {
  const { name, bytes } = disk
  const id = `subpage-export-${name}`
  await qmp.run('block-export-add', { type: 'nbd', id, name, 'node-name': diskNode(disk) })
  const reader = await NbdReader.open(path, name)
  return {
    hashes: (range) => readHashes(reader, bytes, range),
    read: async ({ first, count }) => {
      const offset = first * chunkBytes
      return await reader.read(offset, Math.min(count * chunkBytes, bytes - offset))
    },
    close: () => reader.close(),
  }
}

/** @throws Error when the file is shorter */
function readChunks(file: number, bytes: number, { first, count }: ChunkRange): Promise<Uint8Array> {
  const offset = first * chunkBytes
  const content = Buffer.allocUnsafe(Math.min(count * chunkBytes, bytes - offset))
  return new Promise((resolve, reject) => {
    const more = (done: number) => {
      if (done === content.length) return resolve(content)
      read(file, content, done, content.length - done, offset + done, (error, got) => {
        if (error) reject(error)
        else if (got === 0) reject(new Error(`it ends at byte ${offset + done}`))
        else more(done + got)
      })
    }
    more(0)
  })
}

async function readHashes(
  reader: NbdReader,
  bytes: number,
  { first, count }: ChunkRange,
): Promise<Uint8Array> {
  const hashes = new Uint8Array(count * hashBytes)
  for (let done = 0; done < count; done += pieceChunks) {
    const offset = (first + done) * chunkBytes
    const length = Math.min(Math.min(pieceChunks, count - done) * chunkBytes, bytes - offset)
    hashes.set(hashChunks(await reader.read(offset, length)), done * hashBytes)
  }
  return hashes
}

const failed = (cause: unknown) =>
  new SubpageError('DISK_FAILED', `a disk of the guest cannot be read: ${(cause as Error).message}`, {
    cause,
  })
