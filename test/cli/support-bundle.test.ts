/** A bundle of a real agent: what is in it, and that no secret is. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type EphemeralAgent, startEphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { perform } from '../../src/cli/perform.ts'
import { redact } from '../../src/cli/support-bundle.ts'
import { freePort } from '../support/free-port.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-bundle-test-'))
const state = join(directory, 'agent')
const token = `token-${'t'.repeat(40)}`
let agent: EphemeralAgent

beforeAll(async () => {
  writeFileSync(join(directory, 'token'), token, { mode: 0o600 })
  const env = {
    SUBPAGE_API_LISTEN: `127.0.0.1:${await freePort()}`,
    SUBPAGE_API_TOKEN_FILE: join(directory, 'token'),
  }
  agent = await startEphemeralAgent({ stateDirectory: state, host: 'here', env })
})
afterAll(async () => {
  await agent.end()
  rmSync(directory, { recursive: true })
})

async function bundle(at: string, name: string) {
  let out = ''
  const path = join(directory, `${name}.tar.gz`)
  const argv = ['support-bundle', '-o', path, '--state', at, '--json']
  const status = await perform(argv, { out: { write: (text) => (out += text) }, err: process.stderr })
  expect(status).toBe(0)
  mkdirSync(join(directory, name))
  execFileSync('tar', ['-xzf', path, '-C', join(directory, name)])
  const read = (file: string) => readFileSync(join(directory, name, 'subpage-bundle', file), 'utf8')
  return { path, made: JSON.parse(out) as { files: string[]; bytes: number }, read }
}

test('it has what the agent says, what the host is, and the ends of logs; no secret, and no console', async () => {
  // What a guest leaves; no process is behind it.
  const guest = join(state, 'guests', 'web')
  mkdirSync(guest, { recursive: true })
  writeFileSync(
    join(guest, 'supervisor.log'),
    `${'{"level":"info","message":"old"}\n'.repeat(20_000)}Error: Bearer ${token}\n`,
  )
  writeFileSync(join(guest, 'qemu.log'), 'qemu: -object secret,id=vnc,password=hunter2: bad\n')
  writeFileSync(join(guest, 'console.log'), 'login: root\nPassword: swordfish\n')
  writeFileSync(join(guest, 'vnc.secret'), 'sesame')
  try {
    const { path, made, read } = await bundle(state, 'whole')
    expect(made.files).toEqual(
      expect.arrayContaining([
        ...['versions.json', 'check.json', 'status.json', 'density.json', 'events.jsonl'],
        ...['guests/web/supervisor.log', 'guests/web/qemu.log', 'guests/web/files.txt'],
      ]),
    )
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(statSync(path).size).toBe(made.bytes)
    expect(JSON.parse(read('status.json'))).toMatchObject({ host: 'here' })
    expect(JSON.parse(read('check.json')).items.length).toBeGreaterThan(5)
    expect(JSON.parse(read('versions.json'))).toMatchObject({ node: process.version })
    expect(JSON.parse(read('events.jsonl').split('\n')[0]!).text).toMatch(/the API listens/)
    const log = read('guests/web/supervisor.log')
    expect(log.length).toBeLessThanOrEqual(256 * 1024)
    expect(log).toMatch(/Error: Bearer REDACTED\n$/)
    expect(read('guests/web/qemu.log')).toContain('password=REDACTED')
    const all = made.files.map(read).join('\n')
    for (const secret of [token, 'hunter2', 'swordfish', 'sesame']) expect(all).not.toContain(secret)
  } finally {
    rmSync(guest, { recursive: true })
  }
})

test('where no agent answers it has the rest, and says why', async () => {
  const nobody = join(directory, 'nobody')
  mkdirSync(nobody, { mode: 0o700 })
  const { read } = await bundle(nobody, 'without')
  expect(read('status.json')).toMatch(/^not to be had: no agent answers/)
  expect(JSON.parse(read('versions.json'))).toMatchObject({ subpage: expect.any(String) })
})

test.each([
  ['authorization: Bearer abcdef0123456789', 'authorization: Bearer REDACTED'],
  ['{"password":"a \\"b\\" c","x":1}', '{"password":"REDACTED","x":1}'],
  ['-spice password=x,port=1', '-spice password=REDACTED,port=1'],
  ['etcd:https://me:secret@e1:2379', 'etcd:https://me:REDACTED@e1:2379'],
  ['SUBPAGE_ETCD_PASSWORD=abc', 'SUBPAGE_ETCD_PASSWORD=REDACTED'],
  ['-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----\nrest', 'REDACTED\nrest'],
  ['http://127.0.0.1:1/#0123456789abcdef0123456789abcdef', 'http://127.0.0.1:1/#REDACTED'],
  // What only names a file is no secret, and often the reason.
  ['--api-token-file /etc/token: mode 0644', '--api-token-file /etc/token: mode 0644'],
  ['--vnc-password-file=/etc/vnc', '--vnc-password-file=/etc/vnc'],
])('redacted: %s', (text, expected) => {
  expect(redact(text)).toBe(expected)
})
