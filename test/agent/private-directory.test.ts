/** What can be no state directory is called what it is; only what others could look into is called exposed. */
import { execFileSync } from 'node:child_process'
import { chmodSync, lstatSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { AgentClient } from '../../src/agent/client.ts'
import { makePrivateDirectory } from '../../src/agent/private-directory.ts'
import { apiSocket } from '../../src/agent/state-directory.ts'
import type { SubpageError } from '../../src/errors.ts'

const folder = mkdtempSync(join(tmpdir(), 'subpage-private-'))
const at = (name: string) => join(folder, name)
const server = createServer()
beforeAll(async () => {
  writeFileSync(at('file'), 'precious', { mode: 0o600 })
  mkdirSync(at('directory'), 0o700)
  mkdirSync(at('open'))
  chmodSync(at('open'), 0o750)
  symlinkSync('file', at('link'))
  symlinkSync('nowhere', at('dangling'))
  execFileSync('mkfifo', ['-m', '600', at('pipe')])
  await new Promise<void>((listening) => server.listen(at('socket'), listening))
})
afterAll(() => {
  server.close()
  rmSync(folder, { recursive: true })
})

const refusal = (path: string): SubpageError => {
  try {
    makePrivateDirectory(path)
  } catch (error) {
    return error as SubpageError
  }
  throw new Error(`${path} was accepted`)
}

test.each([
  ['file', 'a file'],
  ['link', 'a link'],
  ['dangling', 'a link'],
  ['pipe', 'a pipe'],
  ['socket', 'a socket'],
])('%s is %s, not a directory', (name, kind) => {
  const before = lstatSync(at(name)).ino
  expect(refusal(at(name))).toMatchObject({
    code: 'BAD_ARGUMENT',
    message: `${at(name)} is ${kind}, not a directory: choose another --state`,
  })
  expect(lstatSync(at(name)).ino).toBe(before)
})

test('a device is called one', () => {
  expect(refusal('/dev/null')).toMatchObject({
    code: 'BAD_ARGUMENT',
    message: '/dev/null is a device, not a directory: choose another --state',
  })
})

test('a directory that others can look into is exposed; a private or a new one is taken', () => {
  expect(refusal(at('open'))).toMatchObject({ code: 'SECRET_EXPOSED' })
  makePrivateDirectory(at('directory'))
  makePrivateDirectory(at('new/deep'))
  expect(lstatSync(at('new/deep')).mode & 0o777).toBe(0o700)
})

test('a command for an agent whose state directory can be none says so', async () => {
  for (const path of [at('file'), join(at('file'), 'below')])
    await expect(new AgentClient(apiSocket(path)).status()).rejects.toMatchObject({
      code: 'BAD_ARGUMENT',
      message: `no agent can be reached by ${path}/api.sock: a part of this path is no directory`,
    })
})
