/**
 * Writes to disks that belong to the checkpoint on its way: restored and checked on arrival, written after its commit. What they
 * share with the memory of the last checkpoint is filled in on arrival; what they share with that of their own, once it is applied.
 */
import type { Restorer } from '../delta/reduce.ts'
import { checkDisk } from '../disk/records.ts'
import { invariant, SubpageError } from '../errors.ts'
import { limits } from '../limits.ts'
import { addon } from '../memory/native.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import type { Region } from '../memory/region.ts'
import { type DiskImage, type DiskJournal, diskForm, diskHeaderBytes, type WritesSpill } from './disks.ts'
import type { GiveBack, Image } from './image.ts'
import { brokeProtocol } from './messages.ts'

/** What a held frame takes beside its bytes; a flood of tiny ones must not pass for a small checkpoint. */
export const frameOverheadBytes = 512
const fillBytes = 12
const nothing = new Uint8Array(0)

/** Of one frame. */
export interface Writes {
  /** As the guest's description has it. */
  number: number
  disk: DiskImage
  /** Of the payload. */
  bytes: number
  payload: () => Promise<Uint8Array>
  /** Where the records begin in it. */
  from: number
  /** To be filled from the image when the epoch is applied; its pages are borrowed until then. */
  fills: Uint8Array
  giveBack: GiveBack
}

export class HeldWrites {
  readonly #image: Image
  readonly #disks: readonly DiskImage[]
  readonly #spill: WritesSpill
  #writes: Writes[] = []
  #bytes = 0
  #spilledBytes = 0
  /** Since the last commit of this connection: seeding drops no writes. */
  #frames = 0

  /** @param spill for what is more than `limits.heldDiskBytes` */
  constructor(image: Image, disks: readonly DiskImage[], spill: WritesSpill) {
    this.#image = image
    this.#disks = disks
    this.#spill = spill
  }

  /** In memory, of the checkpoint that is on its way. */
  get bytes(): number {
    return this.#bytes - this.#spilledBytes
  }

  get frames(): number {
    return this.#frames
  }

  /** @throws SubpageError FRAME_MALFORMED, DISK_FAILED when there is no room, or as `Image.borrow` */
  async hold(payload: Uint8Array, restorer: Restorer | undefined): Promise<void> {
    const writes = await this.read(payload, restorer)
    const bytes = writes.bytes + writes.fills.length + frameOverheadBytes
    const kept = this.bytes + bytes > limits.heldDiskBytes.value ? await this.#putAside(writes) : writes
    this.#writes.push(kept)
    this.#frames++
    this.#bytes += bytes
    if (this.#bytes > limits.checkpointDiskBytes.value)
      throw brokeProtocol('its checkpoint has more writes to disks than a standby holds')
  }

  /** What of a frame is to be done. @throws SubpageError FRAME_MALFORMED, or as `Image.borrow` */
  async read(payload: Uint8Array, restorer: Restorer | undefined): Promise<Writes> {
    const header = Buffer.from(payload.buffer, payload.byteOffset, payload.length)
    if (payload.length < diskHeaderBytes) throw brokeProtocol('it sends writes to a disk without a header')
    const [number, form] = [header.readUInt32LE(0), header.readUInt32LE(4)]
    const disk = this.#disks[number]
    if (!disk) throw brokeProtocol(`it writes to disk ${number}, which the guest has not`)
    if (form === diskForm.reduced)
      return await this.#restore(number, disk, payload.subarray(diskHeaderBytes), restorer)
    if (form !== diskForm.plain) throw brokeProtocol(`it sends writes to a disk in the unknown form ${form}`)
    checkDisk(payload, diskHeaderBytes, disk.bytes)
    return {
      ...{ number, disk, bytes: payload.length, payload: async () => payload, from: diskHeaderBytes },
      ...{ fills: nothing, giveBack: () => undefined },
    }
  }

  /** Its records are as they were, should they be filled before they are read again. */
  async #putAside(writes: Writes): Promise<Writes> {
    try {
      const { load, release } = await this.#spill.put(await writes.payload())
      this.#spilledBytes += writes.bytes
      // The content must go: nothing that stays may refer to it.
      const pages = writes.giveBack
      const giveBack = () => {
        pages()
        release()
      }
      return { ...writes, payload: load, giveBack }
    } catch (cause) {
      writes.giveBack()
      throw new SubpageError(
        'DISK_FAILED',
        `the standby cannot put writes to disks aside: ${(cause as Error).message}`,
        { cause },
      )
    }
  }

  async #restore(
    number: number,
    disk: DiskImage,
    reduced: Uint8Array,
    restorer: Restorer | undefined,
  ): Promise<Writes> {
    if (!restorer) throw brokeProtocol('it sends reduced writes to a disk and did not say so')
    const { region } = this.#image
    const bytesMax = limits.framePayloadBytes.value
    const { records, fills, after } = await restorer.restoreWrites(reduced, region.pages, bytesMax)
    checkDisk(records, 0, disk.bytes)
    const writes = {
      ...{ number, disk, bytes: records.length, payload: async () => records, from: 0, fills: nothing },
      giveBack: () => undefined,
    }
    if (fills.length === 0) return writes
    const giveBack = await this.#image.borrow(() => pagesOf(fills))
    if (after) return { ...writes, fills, giveBack }
    await fill(records, fills, region).finally(giveBack)
    return writes
  }

  /** What is held, for whoever does it; the frames are counted on. */
  take(): Writes[] {
    const writes = this.#writes
    this.#writes = []
    this.#bytes = 0
    this.#spilledBytes = 0
    return writes
  }

  /** A commit has been made of it, or none will. */
  forget(): void {
    for (const { giveBack } of this.take()) giveBack()
    this.#frames = 0
  }
}

/**
 * Keeps what is to be written, before it is.
 * @param applied settles when the image is that of the writes' own epoch
 * @throws SubpageError DISK_FAILED
 */
export async function keep(
  journal: DiskJournal,
  epoch: number,
  writes: readonly Writes[],
  image: Region,
  applied: Promise<void>,
): Promise<void> {
  await applied
  const kept = writes.map((one) => ({
    ...{ disk: one.number, bytes: one.bytes - one.from },
    records: async () => (await filled(one, image)).subarray(one.from),
  }))
  await journal.append(epoch, kept).catch((cause: Error) => {
    throw new SubpageError('DISK_FAILED', `the standby cannot keep writes to disks: ${cause.message}`, {
      cause,
    })
  })
}

/**
 * Writes in order.
 * @param applied settles when the image is that of the writes' own epoch
 * @throws SubpageError DISK_FAILED
 */
export async function redo(writes: readonly Writes[], image: Region, applied: Promise<void>): Promise<void> {
  const failed = (cause: Error) => {
    throw new SubpageError('DISK_FAILED', `a disk of the standby cannot be written: ${cause.message}`, {
      cause,
    })
  }
  for (const one of writes) {
    if (one.fills.length > 0) await applied
    await filled(one, image)
      .then((payload) => one.disk.apply(payload, one.from))
      .catch(failed)
  }
}

/** Absolute content, so twice is once. */
async function filled({ payload, fills }: Writes, image: Region): Promise<Uint8Array> {
  const records = await payload()
  if (fills.length > 0) await fill(records, fills, image)
  return records
}

async function fill(records: Uint8Array, fills: Uint8Array, image: Region): Promise<void> {
  invariant(await addon.fillWrites(records, fills, image.handle), 'what was restored lies within the image')
}

function pagesOf(fills: Uint8Array): PageRanges {
  const words = new Uint32Array(fills.buffer, fills.byteOffset, fills.length / Uint32Array.BYTES_PER_ELEMENT)
  const pages: [number, number][] = []
  for (let at = 1; at < words.length; at += fillBytes / 4) pages.push([words[at]!, 1])
  return PageRanges.of(pages)
}
