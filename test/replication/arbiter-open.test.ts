/** What names an arbiter, and what must not be in it. */
import { once } from 'node:events'
import * as fs from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { limits } from '../../src/limits.ts'
import { type ArbiterOptions, openArbiter } from '../../src/replication/arbiters/open.ts'

const scratch = fs.mkdtempSync(join(tmpdir(), 'subpage-open-'))
afterAll(() => fs.rmSync(scratch, { recursive: true }))

function file(name: string, mode: number): string {
  const path = join(scratch, name)
  fs.writeFileSync(path, 'secret')
  fs.chmodSync(path, mode)
  return path
}

describe('openArbiter', () => {
  const password = file('password', 0o600)

  it.each<[string, ArbiterOptions, string]>([
    ['file:/run/subpage/arbiter', {}, 'file /run/subpage/arbiter'],
    ['etcd:http://127.0.0.1:2379', {}, 'etcd http://127.0.0.1:2379'],
    ['etcd:https://h1:2379,https://h2:2379', {}, 'etcd https://h1:2379,https://h2:2379'],
    ['etcd:https://h1:2379', { user: 'u', passwordFile: password }, 'etcd https://h1:2379'],
    ['etcd:http://[::1]:2379', { user: 'u', passwordFile: password }, 'etcd http://[::1]:2379'],
  ])('opens %s', (spec, options, description) => {
    const arbiter = openArbiter(spec, options)
    expect(arbiter.description).toBe(description)
    arbiter.close()
  })

  it.each<[string, ArbiterOptions, RegExp]>([
    ['', {}, /write file:/],
    ['/run/arbiter', {}, /write file:/],
    ['file:', {}, /absolute path/],
    ['file:arbiter', {}, /absolute path/],
    ['file:/run/a\nb', {}, /absolute path/],
    ['file:/run/arbiter', { user: 'u' }, /for etcd/],
    ['etcd:', {}, /each member/],
    ['etcd:h1:2379', {}, /each member/],
    ['etcd:ftp://h1', {}, /each member/],
    ['etcd:https://h1:2379/v3', {}, /each member/],
    ['etcd:https://h1:2379?x=1', {}, /each member/],
    ['etcd:https://h1:2379,', {}, /each member/],
    ['etcd:https://u:swordfish@h1:2379', {}, /must not hold a password/],
    ['etcd:https://h1:2379', { prefix: 'subpage' }, /slash/],
    ['etcd:https://h1:2379', { prefix: '/sub page/' }, /slash/],
    ['etcd:https://h1:2379', { certFile: password }, /needs its key/],
    ['etcd:https://h1:2379', { passwordFile: password }, /needs a user/],
    ['etcd:https://h1:2379', { user: 'u' }, /needs a password/],
    ['etcd:http://h1:2379', { user: 'u', passwordFile: password }, /in the clear/],
    ['etcd:https://h1:2379', { user: 'u', passwordFile: file('empty-handed', 0o604) }, /chmod o=/],
    ['etcd:https://h1:2379', { certFile: password, keyFile: file('open.key', 0o644) }, /chmod o=/],
    ['etcd:https://h1:2379', { caFile: join(scratch, 'missing') }, /cannot read|cannot be read/],
  ])('refuses %j with %j', (spec, options, message) => {
    let thrown: unknown
    try {
      openArbiter(spec, options)
    } catch (error) {
      thrown = error
    }
    expect(thrown).toMatchObject({ code: 'BAD_ARGUMENT', message: expect.stringMatching(message) })
    expect((thrown as Error).message).not.toMatch(/swordfish|secret/)
  })
})

it('reads no answer that is longer than any of etcd', async () => {
  let sent = 0
  const server = createServer((_, response) => {
    const chunk = Buffer.alloc(limits.arbiterAnswerBytes.value / 4, 0x20)
    // Without end, as long as anybody reads.
    const more = () => {
      while (!response.destroyed) {
        sent += chunk.length
        if (!response.write(chunk)) return
      }
    }
    response.on('drain', more).on('error', () => undefined)
    more()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const arbiter = openArbiter(`etcd:http://127.0.0.1:${(server.address() as AddressInfo).port}`, {
    limitMs: 3_000,
  })
  await expect(arbiter.claim('6b1f3c1e-0000-4000-8000-000000000001', 1, 'host-a')).rejects.toMatchObject({
    code: 'ARBITER_UNREACHABLE',
    message: expect.stringContaining('the answer is too long'),
  })
  expect(sent).toBeGreaterThan(0)
  arbiter.close()
  server.closeAllConnections()
  server.close()
})
