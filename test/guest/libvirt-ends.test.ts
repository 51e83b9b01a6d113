/** What people do with virsh is told apart from a death; what cannot be protected is refused with what to do. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { until } from '../support/hosts.ts'
import { type LibvirtHost, LibvirtPair } from '../support/libvirt-pair.ts'

const guestAddress = '10.79.0.2'

let pair: LibvirtPair
let a: LibvirtHost
let b: LibvirtHost

beforeAll(async () => {
  pair = await LibvirtPair.make()
  ;({ a, b } = pair)
  await pair.define('web', guestAddress, ['--disk', 'none', '--graphics', 'none'])
})

afterAll(() => pair[Symbol.asyncDispose]())

test.each([
  ['destroy', /ended through libvirt/] as const,
  ['managedsave', /saved its state/] as const,
  ['shutdown', /shut itself down/] as const,
])('virsh %s ends the guest, and its standby goes with it', async (command, reason) => {
  await pair.startAndProtect('web')
  if (command === 'shutdown') await pair.connect(guestAddress)
  // In a checkpoint's pause libvirt takes the guest for paused, and refuses to shut it down.
  await expect.poll(() => a.libvirtd.run('virsh', command, 'web')).toMatchObject({ status: 0 })
  const { reason: said } = await until(a.agent, 'web', ({ state }) => state === 'Ended')
  expect(said).toMatch(reason)
  await expect.poll(() => b.libvirtd.virsh('list', '--all', '--name')).not.toContain('web')
  await expect.poll(() => a.libvirtd.stateOf('web')).toBe('shut off')
  if (command === 'managedsave') await a.libvirtd.virsh('managedsave-remove', 'web')
})

test('a domain that was not prepared, or does not run, is refused with what to do', async () => {
  expect((await pair.protect('web')).said).toMatch(/virsh start web/)
  await a.libvirtd.subpage('libvirt', 'prepare', 'web', '--undo')
  await a.libvirtd.virsh('start', 'web')
  const { said } = await pair.protect('web')
  expect(said.replaceAll(/\s+/g, ' ')).toContain('subpage libvirt prepare web --apply')
  // It runs on as it did.
  expect(await a.libvirtd.stateOf('web')).toBe('running')
})
