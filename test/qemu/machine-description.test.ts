/** The description of a machine, from another host: what is executed here, on its word. */
import { describe, expect, test } from 'vitest'
import { limits } from '../../src/limits.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { readDescription } from '../../src/qemu/machine-description.ts'

const hypervisor = {
  qemu: '7.2.22',
  ramBytes: 2 ** 28,
  aux: [4096, 2 ** 24],
  type: 'q35',
  accel: 'tcg',
  options: ['-smp', '2'],
  nics: [],
  disks: [],
}
const read = (change: Record<string, unknown>, memoryBytes = 2 ** 28 + 4096 + 2 ** 24) =>
  readDescription(
    {
      id: '6f9619ff-8b86-4d01-b42d-00cf4fc964ff',
      name: 'web',
      memoryBytes,
      diskBytes: [],
      hypervisor: { ...hypervisor, ...change },
    },
    guestFiles('/somewhere', 'web'),
    { images: ['/srv/images'], disks: [] },
  )

test('is what the primary said', () => {
  expect(read({})).toMatchObject({
    version: '7.2.22',
    machine: { type: 'q35', ramBytes: 2 ** 28, accel: 'tcg', options: ['-smp', '2'] },
  })
})

/** Libvirt's, in whose description the options are. */
const managed = { managed: { description: '<domain/>', netdevs: [], autostart: false }, options: [] }

test('its memory backends are in its options, or in the words of whoever manages it', () => {
  const half = 2 ** 27
  const dimm = ['-object', 'memory-backend-ram,id=a,size=128M', '-device', 'pc-dimm,memdev=a']
  for (const change of [{ options: dimm }, { ...managed, backends: [half, half] }])
    expect(read(change).machine).toMatchObject({ backends: [half, half] })
})

const lies: [change: Record<string, unknown>, code: string][] = [
  [{ options: ['-monitor', 'stdio'] }, 'GUEST_UNPROTECTABLE'],
  [{ options: ['-kernel', '/etc/shadow'] }, 'GUEST_UNPROTECTABLE'],
  [{ type: 'q35,dumpdtb=/etc/x' }, 'GUEST_UNPROTECTABLE'],
  [{ type: 'q35 -monitor stdio' }, 'GUEST_UNPROTECTABLE'],
  [{ accel: 'kvm,x=y' }, 'PEER_MISMATCH'],
  [{ options: '-S' }, 'PEER_MISMATCH'],
  [{ options: [{ toString: 'x' }] }, 'PEER_MISMATCH'],
  [{ nics: [{ bridge: 'br0 master', mac: '52:54:00:00:00:01' }] }, 'PEER_MISMATCH'],
  [{ extra: 1 }, 'PEER_MISMATCH'],
  [{ qemu: undefined }, 'PEER_MISMATCH'],
  [{ aux: [4096] }, 'PEER_MISMATCH'],
  [{ ...managed, backends: [2 ** 27] }, 'PEER_MISMATCH'],
  [{ ...managed, backends: [] }, 'PEER_MISMATCH'],
  [{ ...managed, backends: [2 ** 28 - 1, 1] }, 'PEER_MISMATCH'],
  [{ aux: [4095, 2 ** 24] }, 'PEER_MISMATCH'],
  [{ ramBytes: 2 ** 40 }, 'PEER_MISMATCH'],
  [{ vnc: { address: '192.0.2.1' } }, 'PEER_MISMATCH'],
  [{ vnc: { address: '0.0.0.0' } }, 'BAD_ARGUMENT'],
  [{ vnc: { address: '127.0.0.1', certificate: { ca: '/a', cert: '/b', key: '/c' } } }, 'PEER_MISMATCH'],
  [{ vnc: { address: '127.0.0.1', tls: true } }, 'PEER_MISMATCH'],
]
for (const [change, code] of lies)
  test(`${JSON.stringify(change)} is refused`, () =>
    expect(() => read(change)).toThrow(expect.objectContaining({ code })))

describe('as many parts as there may be, and one more', () => {
  const many = <T>(count: number, one: (n: number) => T) => Array.from({ length: count }, (_, n) => one(n))
  const disk = (n: number) => ({ name: `d${n}`, bytes: 2 ** 20, bus: 'virtio', cache: 'writeback' })
  const card = () => ({ bridge: 'br0', mac: '52:54:00:00:00:01' })
  const parts: [name: string, most: number, of: (count: number) => Record<string, unknown>][] = [
    ['disks', limits.disks.value, (count) => ({ disks: many(count, disk) })],
    ['cards', limits.networkCards.value, (count) => ({ nics: many(count, card) })],
    ['blocks', limits.memoryBlocks.value, (count) => ({ aux: many(count, () => 4096) })],
  ]
  test.each(parts)('%s', (_name, most, of) => {
    const bytes = (count: number) =>
      2 ** 28 + ((of(count).aux as number[]) ?? hypervisor.aux).reduce((a, b) => a + b)
    expect(() => read(of(most), bytes(most))).not.toThrow()
    expect(() => read(of(most + 1), bytes(most + 1))).toThrow(
      expect.objectContaining({ code: 'PEER_MISMATCH' }),
    )
  })
})
