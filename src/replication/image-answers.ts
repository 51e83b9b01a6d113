/** What a standby tells its primary: what it has, hashes of the image or a disk, and one page. */
import { SubpageError } from '../errors.ts'
import { pageBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import { release } from '../release.ts'
import type { Connection } from './connection.ts'
import type { DiskImage } from './disks.ts'
import { frameType, payloadBytesMax } from './frame.ts'
import type { Image } from './image.ts'
import type { Welcome } from './messages.ts'
import type { StandbyOptions } from './standby-options.ts'

/** What does not change between connections. */
export const welcomeOf = ({ image, disks, succession }: StandbyOptions) =>
  ({
    release,
    claimant: succession.claimant,
    imagePages: image.region.pages,
    disks: disks.map(({ path, made }) => ({ path, made })),
  }) satisfies Partial<Welcome>

/**
 * XXH3-128 of every page in order, 16 bytes each, over as many frames as needed; or of every 64 KiB of a disk.
 * @param of 0: the image; else the number of a disk, from 1
 * @throws SubpageError FRAME_MALFORMED when there is no such disk
 */
export async function sendHashes(
  connection: Connection,
  image: Image,
  disks: readonly DiskImage[],
  of: number,
): Promise<void> {
  const asked = of === 0 ? image : disks[of - 1]
  if (!asked) throw new SubpageError('FRAME_MALFORMED', `the primary asks for disk ${of} of ${disks.length}`)
  const hashes = await asked.hashes()
  for (let at = 0; at < hashes.length; at += payloadBytesMax)
    await connection.send(frameType.hashes, 0, hashes.subarray(at, at + payloadBytesMax))
}

/** @throws SubpageError FRAME_MALFORMED when there is no such page */
export async function sendPage(connection: Connection, image: Image, page: number): Promise<void> {
  const { region } = image
  if (page >= region.pages)
    throw new SubpageError('FRAME_MALFORMED', `the primary asks for page ${page} of ${region.pages}`)
  const giveBack = await image.borrow(() => PageRanges.of([[page, 1]]))
  const content = region.read(page * pageBytes, pageBytes)
  giveBack()
  await connection.send(frameType.page, page, content)
}
