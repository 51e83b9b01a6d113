/** Reads the disks of a guest through QEMU, as the guest sees them: read-only exports of QEMU's own NBD server. */
import { NbdReader } from '../disk/nbd-reader.ts'
import { type ChunkRange, chunkBytes, hashChunks } from '../disk/records.ts'
import { SubpageError } from '../errors.ts'
import { hashBytes } from '../memory/hash.ts'
import type { DiskReader } from '../replication/disks.ts'
import { type Disk, diskNode } from './disk.ts'
import type { Qmp } from './qmp.ts'

/** Read at a time. */
const pieceChunks = 16

/** @param path of QEMU's socket, while it is open @throws SubpageError DISK_FAILED */
export async function openExports(qmp: Qmp, path: string, disks: readonly Disk[]): Promise<DiskReader> {
  const readers: NbdReader[] = []
  const close = async () => {
    for (const reader of readers) reader.close()
    // It ends its exports, also those that a former supervisor has left. There may be no server.
    await qmp.run('nbd-server-stop').catch(() => undefined)
  }
  try {
    await close()
    await qmp.run('nbd-server-start', { addr: { type: 'unix', data: { path } } })
    for (const { name } of disks) {
      const id = `subpage-export-${name}`
      await qmp.run('block-export-add', { type: 'nbd', id, name, 'node-name': diskNode(name) })
      readers.push(await NbdReader.open(path, name))
    }
  } catch (cause) {
    await close()
    throw failed(cause)
  }
  return {
    hashes: async (disk, range) => {
      const [reader, shape] = [readers[disk], disks[disk]]
      if (!reader || !shape) throw new TypeError(`there is no disk ${disk}`)
      return await hashesOf(reader, shape.bytes, range).catch((cause) => {
        throw failed(cause)
      })
    },
    [Symbol.asyncDispose]: close,
  }
}

async function hashesOf(reader: NbdReader, bytes: number, { first, count }: ChunkRange): Promise<Uint8Array> {
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
