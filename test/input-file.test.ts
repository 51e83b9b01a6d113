/** What a user names to be read is a regular file; anything else is refused at once, and called what it is. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, mkdtempSync, readSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readTrace } from '../lab/src/trace.ts'
import { readToken } from '../src/agent/api-token.ts'
import { loadCredentials } from '../src/agent/credentials.ts'
import { surveyImage } from '../src/density/survey-images.ts'
import { openInput, readInput } from '../src/input-file.ts'
import { openImage } from '../src/memory/images/memory-image.ts'
import { disksOf } from '../src/qemu/disk-places.ts'
import { guestFiles } from '../src/qemu/guest-files.ts'
import { readSecret } from '../src/replication/arbiters/etcd-gateway.ts'

const folder = mkdtempSync(join(tmpdir(), 'subpage-input-'))
const server = createServer()
const at = (name: string) => join(folder, name)
beforeAll(async () => {
  execFileSync('mkfifo', ['-m', '600', at('pipe')])
  symlinkSync('pipe', at('link'))
  mkdirSync(at('directory'), { mode: 0o700 })
  writeFileSync(at('file'), 'what it holds')
  server.listen(at('socket'))
  await once(server, 'listening')
})
afterAll(() => {
  server.close()
  rmSync(folder, { recursive: true })
})

const kinds = [
  ['pipe', 'a pipe'],
  ['link', 'a pipe'],
  ['socket', 'a socket'],
  ['directory', 'a directory'],
  ['/dev/null', 'a device'],
] as const

describe.each<[string, (path: string) => unknown]>([
  ['a recording', readTrace],
  ['an image of memory', openImage],
  ['an image to survey', surveyImage],
  ['a token', readToken],
  ['a key', (key) => loadCredentials({ key, ca: at('file'), cert: at('file') })],
  ['a CA', (ca) => loadCredentials({ key: at('file'), ca, cert: at('file') })],
  ['a password', (path) => readSecret(path, 'password')],
  ['a disk', (path) => disksOf([{ path }], guestFiles(folder, 'x'), { id: '', name: 'x' })],
])('%s', (_, read) => {
  test.each(kinds)('cannot be %s', (name, kind) => {
    execFileSync('chmod', ['600', at('file')])
    const path = name.startsWith('/') ? name : at(name)
    expect(() => read(path)).toThrow(expect.objectContaining({ message: expect.stringContaining(kind) }))
  })
})

test('a file is read, and what cannot be is said', () => {
  const fd = openInput(at('file'))
  const bytes = Buffer.alloc(4)
  readSync(fd, bytes, 0, 4, 5)
  closeSync(fd)
  expect([bytes.toString(), readInput(at('file')).toString()]).toEqual(['it h', 'what it holds'])
  expect(() => openInput(at('none'))).toThrow(`there is no file ${at('none')}`)
  expect(() => openInput(at('none'), 'the key')).toThrow(/cannot read the key .*none: there is no such file/)
  expect(() => openInput(at('file/x'))).toThrow(/ENOTDIR/)
})
