/** What a standby tells its primary: what it has, hashes of the image or a disk, and one page. */
import { type ChunkRange, chunksOf } from '../disk/records.ts'
import { SubpageError } from '../errors.ts'
import { pageBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import { release } from '../release.ts'
import type { Connection } from './connection.ts'
import type { CopyLineages } from './disk-lineages.ts'
import type { DiskImage } from './disks.ts'
import { type Frame, frameType, payloadBytesMax } from './frame.ts'
import type { Image } from './image.ts'
import { decodeRange, type Welcome } from './messages.ts'
import type { StandbyOptions } from './standby-options.ts'

/** What does not change between connections. */
export const welcomeOf = (
  { guest, image, disks, host, succession }: StandbyOptions,
  held: Welcome['image'],
) =>
  ({
    release,
    image: held,
    blank: held === 'fresh' && guest.blank,
    claimant: succession.claimant,
    host,
    imagePages: image.region.pages,
    disks: disks.map(({ path, made, map }) => ({ path, made, ...(map && { lineage: map.lineage }) })),
    parts: [...guest.parts],
  }) satisfies Partial<Welcome>

/**
 * XXH3-128 of every page in order, 16 bytes each, over as many frames as needed; or of chunks of a disk.
 * @param frame epoch 0: of the image; else the number of a disk, from 1, and which chunks
 * @throws SubpageError FRAME_MALFORMED when there is no such disk, or chunk
 */
async function sendHashes(
  connection: Connection,
  image: Image,
  disks: readonly DiskImage[],
  { epoch: of, payload }: Pick<Frame, 'epoch' | 'payload'>,
): Promise<void> {
  const hashes = of === 0 ? await image.hashes() : await diskHashes(disks, of, decodeRange(payload))
  for (let at = 0; at < hashes.length; at += payloadBytesMax)
    await connection.send(frameType.hashes, 0, hashes.subarray(at, at + payloadBytesMax))
}

async function diskHashes(disks: readonly DiskImage[], of: number, range: ChunkRange): Promise<Uint8Array> {
  const disk = disks[of - 1]
  if (!disk) throw new SubpageError('FRAME_MALFORMED', `the primary asks for disk ${of} of ${disks.length}`)
  const { first, count } = range
  if (count === 0 || first + count > chunksOf(disk.bytes))
    throw new SubpageError(
      'FRAME_MALFORMED',
      `the primary asks for chunks ${first} to ${first + count} of a disk of ${disk.bytes} bytes`,
    )
  return await disk.hashes(range)
}

/** What a primary asks. @throws SubpageError FRAME_MALFORMED */
export async function answer(
  connection: Connection,
  { image, disks }: Pick<StandbyOptions, 'image' | 'disks'>,
  lineages: CopyLineages,
  frame: Frame,
): Promise<void> {
  if (frame.type === frameType.askHashes) await sendHashes(connection, image, disks, frame)
  else if (frame.type === frameType.askPage) await sendPage(connection, image, frame.epoch)
  else await sendChanges(connection, lineages.changes(frame.epoch - 1))
}

/** @param bits of a disk's chunks, over as many frames as needed */
async function sendChanges(connection: Connection, bits: Uint8Array): Promise<void> {
  for (let at = 0; at < bits.length; at += payloadBytesMax)
    await connection.send(frameType.changes, 0, bits.subarray(at, at + payloadBytesMax))
}

/** @throws SubpageError FRAME_MALFORMED when there is no such page */
async function sendPage(connection: Connection, image: Image, page: number): Promise<void> {
  const { region } = image
  if (page >= region.pages)
    throw new SubpageError('FRAME_MALFORMED', `the primary asks for page ${page} of ${region.pages}`)
  const giveBack = await image.borrow(() => PageRanges.of([[page, 1]]))
  const content = region.read(page * pageBytes, pageBytes)
  giveBack()
  await connection.send(frameType.page, page, content)
}
