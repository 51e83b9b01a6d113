/** An endpoint in a folder of its own, closed and removed when the test ends. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { DiskEndpoint } from '../../src/disk/endpoint.ts'

export function openEndpoint(bytes: number, journalBytesMax = 2 ** 26) {
  const folder = mkdtempSync(join(tmpdir(), 'subpage-disk-'))
  const path = join(folder, 'disk.sock')
  const endpoint = DiskEndpoint.open({ path, bytes, journalBytesMax })
  onTestFinished(() => {
    endpoint.close()
    rmSync(folder, { recursive: true })
  })
  return { endpoint, folder, path, uri: `nbd:unix:${path}` }
}
