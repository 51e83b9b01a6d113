/**
 * Hands descriptions of domains to libvirt, in files that have no name: they may hold passwords, and nothing is left of them, whoever is
 * killed meanwhile.
 */
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inherited, type Virsh } from './virsh.ts'

/** What is started from now on. */
export async function define(virsh: Virsh, xml: string): Promise<void> {
  await withFile(xml, (file) => virsh.runWith(file, 'define', '--file', inherited))
}

/** Starts a domain as this says, whatever its definition is. It does not run yet. */
export async function start(virsh: Virsh, xml: string): Promise<void> {
  await withFile(xml, (file) => virsh.runWith(file, 'create', '--paused', '--file', inherited))
}

async function withFile(xml: string, use: (file: number) => Promise<void>): Promise<void> {
  const file = openNameless()
  try {
    writeFileSync(file, xml)
    await use(file)
  } finally {
    closeSync(file)
  }
}

/** It has a name while it is empty. */
function openNameless(): number {
  const directory = mkdtempSync(join(tmpdir(), 'subpage-domain-'))
  try {
    return openSync(join(directory, 'domain.xml'), 'wx+', 0o600)
  } finally {
    rmSync(directory, { recursive: true })
  }
}
