/** Hands descriptions of domains to libvirt, in files that nobody else may read: they may hold passwords. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Virsh } from './virsh.ts'

/** What is started from now on. */
export async function define(virsh: Virsh, xml: string): Promise<void> {
  await withFile(xml, (file) => virsh.run('define', '--file', file))
}

/** Starts a domain as this says, whatever its definition is. It does not run yet. */
export async function start(virsh: Virsh, xml: string): Promise<void> {
  await withFile(xml, (file) => virsh.run('create', '--paused', '--file', file))
}

async function withFile(xml: string, use: (file: string) => Promise<unknown>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'subpage-domain-'))
  try {
    const file = join(directory, 'domain.xml')
    writeFileSync(file, xml, { mode: 0o600 })
    await use(file)
  } finally {
    rmSync(directory, { recursive: true })
  }
}
