/** What a primary may ask of the image: the hashes of all pages, and one page. */
import { SubpageError } from '../errors.ts'
import { hashBlocks } from '../memory/hash.ts'
import { pageBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import type { Region } from '../memory/region.ts'
import type { Connection } from './connection.ts'
import { frameType, payloadBytesMax } from './frame.ts'

/** XXH3-128 of every page in order, 16 bytes each, over as many frames as needed. */
export async function sendHashes(connection: Connection, image: Region): Promise<void> {
  const hashes = await hashBlocks(image, PageRanges.all(image.pages), pageBytes)
  for (let at = 0; at < hashes.length; at += payloadBytesMax)
    await connection.send(frameType.hashes, 0, hashes.subarray(at, at + payloadBytesMax))
}

/** @throws SubpageError FRAME_MALFORMED when there is no such page */
export async function sendPage(connection: Connection, image: Region, page: number): Promise<void> {
  if (page >= image.pages)
    throw new SubpageError('FRAME_MALFORMED', `the primary asks for page ${page} of ${image.pages}`)
  await connection.send(frameType.page, page, image.read(page * pageBytes, pageBytes))
}
