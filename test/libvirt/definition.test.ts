/** Descriptions that are handed to libvirt's client: they arrive whole, and have no name that could be left. */
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { define } from '../../src/libvirt/definition.ts'
import { connectVirsh } from '../../src/libvirt/virsh.ts'

/** In place of virsh on the PATH; it runs in `folder`, where also temporary files are. */
function clientThat(script: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'subpage-virsh-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const program = join(folder, 'virsh')
  writeFileSync(program, `#!/bin/sh\ncd ${folder}\n${script}\n`)
  chmodSync(program, 0o755)
  vi.stubEnv('PATH', `${folder}:${process.env.PATH}`)
  vi.stubEnv('TMPDIR', folder)
  onTestFinished(() => void vi.unstubAllEnvs())
  return folder
}

// The arguments before: --quiet --connect URI define --file.
test('arrives whole, while nothing of it has a name', async () => {
  const folder = clientThat('cat "$6" >got; ls -d subpage-domain-* >names 2>/dev/null; true')
  const xml = `<domain>${'x'.repeat(100_000)}</domain>`
  await define(connectVirsh('qemu:///system'), xml)
  expect(readFileSync(join(folder, 'got'), 'utf8')).toBe(xml)
  expect(readFileSync(join(folder, 'names'), 'utf8')).toBe('')
  expect(readdirSync(folder).sort()).toEqual(['got', 'names', 'virsh'])
})

test('what the client says against it is the error', async () => {
  clientThat('echo "error: XML error: no domain" >&2; exit 1')
  await expect(define(connectVirsh('qemu:///system'), '<x/>')).rejects.toMatchObject({
    code: 'LIBVIRT_REFUSED',
    message: expect.stringMatching(/virsh define: XML error: no domain/),
  })
})

test('a client that is not there is named', async () => {
  vi.stubEnv('PATH', '/nowhere')
  onTestFinished(() => void vi.unstubAllEnvs())
  await expect(define(connectVirsh('qemu:///system'), '<x/>')).rejects.toMatchObject({
    code: 'LIBVIRT_MISSING',
  })
})
