/**
 * Peers that are no primary, by what they say first, and primaries of another guest: each gets one clear error, and its connection
 * is closed.
 */
import { describe, expect, onTestFinished, test } from 'vitest'
import { admit } from '../../src/replication/admission.ts'
import { frameType } from '../../src/replication/frame.ts'
import type { Hello } from '../../src/replication/messages.ts'
import { helloFor } from './pair.ts'
import { asPrimary, Peer, pages } from './peers.ts'
import { ScriptedHost } from './scripted-host.ts'
import { dial } from './sockets.ts'

const nothing = Buffer.alloc(0)

describe('a hostile greeting', () => {
  async function strange(): Promise<{ host: ScriptedHost; peer: Peer }> {
    const host = await new ScriptedHost(pages).listen()
    const peer = new Peer(await dial(host.port))
    onTestFinished(() => {
      peer.connection.close()
      host.close()
    })
    return { host, peer }
  }

  const greetings: [what: string, greet: (peer: Peer) => unknown, code: string, message: RegExp][] = [
    [
      'another protocol',
      (p) => p.socket.write('SSH-2.0-OpenSSH_9.2 and some more words\r\n'),
      'FRAME_MALFORMED',
      /SPG2/,
    ],
    [
      'no hello',
      (p) => p.connection.send(frameType.commit, 1, nothing),
      'FRAME_MALFORMED',
      /begins with frame type 6/,
    ],
    [
      'no JSON',
      (p) => p.connection.send(frameType.hello, 0, Buffer.from('{')),
      'FRAME_MALFORMED',
      /hello has a wrong form/,
    ],
    [
      'an empty hello',
      (p) => p.connection.send(frameType.hello),
      'FRAME_MALFORMED',
      /hello has a wrong form/,
    ],
    [
      'hello of nobody',
      (p) => p.connection.sendJson(frameType.hello, {}),
      'FRAME_MALFORMED',
      /hello has a wrong form/,
    ],
    [
      'a later protocol',
      (p) => p.connection.sendJson(frameType.hello, { ...helloFor({ pages }), protocol: 999 }),
      'PEER_MISMATCH',
      /speaks protocol 999/,
    ],
  ]
  test.each(greetings)('%s', async (_, greet, code, message) => {
    const { host, peer } = await strange()
    await greet(peer)
    expect(await peer.refusal()).toEqual({ code, message: expect.stringMatching(message) })
    await peer.ended
    expect(host.standby).toBeUndefined()
    expect(host.refused).toHaveLength(1)
  })

  test('a connection that ends without a word', async () => {
    const { host, peer } = await strange()
    peer.socket.end()
    await expect.poll(() => host.refused.map(({ code }) => code)).toEqual(['FRAME_MALFORMED'])
  })
})

describe('who a standby belongs to', () => {
  const ours = helloFor({ pages })
  const other = '11111111-1111-4111-8111-111111111111'
  const others: [what: string, hello: Hello, belongs: boolean][] = [
    ['the same guest', helloFor({ pages }), true],
    ['another release of the same guest', { ...ours, release: 'newer' }, true],
    ['another name', helloFor({ pages, name: 'other' }), false],
    ['another size', helloFor({ pages: pages + 1 }), false],
    ['another machine', { ...ours, guest: { ...ours.guest, hypervisor: { kind: 'other' } } }, false],
    ['a new guest of the same name', { ...ours, guest: { ...ours.guest, id: other } }, false],
    ['an older generation', { ...ours, generation: 0 }, false],
    ['a newer generation', { ...ours, generation: 2 }, true],
    ['the same guest, moved', { ...ours, source: { ...ours.source, host: 'third' } }, true],
  ]
  test.each(others)('%s', async (_, hello, belongs) => {
    const { host } = await asPrimary()
    expect(host.standby?.belongsTo(hello)).toBe(belongs)
  })

  test('one that did not hear that it was given up gives way to its guest, whose machine was changed since', async () => {
    const { host, peer } = await asPrimary()
    const present = { kind: 'standby', standby: host.standby! } as const
    const changed = { ...ours.guest, hypervisor: { kind: 'other' } }
    const later = { ...ours, generation: 2, guest: changed }
    const taken = expect.objectContaining({ code: 'GUEST_EXISTS' })
    await expect(admit(later, present)).rejects.toEqual(taken)
    peer.socket.end()
    await expect.poll(() => host.standby!.connected).toBe(false)
    for (const hello of [
      { ...later, generation: 1 },
      { ...later, guest: { ...changed, id: other } },
    ])
      await expect(admit(hello, present)).rejects.toEqual(taken)
    expect(await admit(later, present)).toBe('renew')
  })
})
