/** The writable disks in a description: what both hosts have alike, and what each puts in. */
import { expect, test } from 'vitest'
import { disksOf, withoutPlaces, withPlaces } from '../../src/libvirt/domain-disks.ts'
import { formatDomain, parseDomain } from '../../src/libvirt/domain-xml.ts'
import type { Disk } from '../../src/qemu/disk.ts'

const cd = `<disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      <source file='/iso/debian.iso'/>
      <target dev='sdb' bus='sata'/>
      <readonly/>
    </disk>`
const domain = (disks: string) => `<domain type='kvm'>
  <name>web</name>
  <devices>
    ${disks}
  </devices>
</domain>
`
const own = domain(`<disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='writethrough' discard='unmap' iothread='1'>
        <metadata_cache>
          <max_size unit='bytes'>1048576</max_size>
        </metadata_cache>
      </driver>
      <source file='/vm/web.qcow2' index='2'/>
      <backingStore type='file'>
        <format type='qcow2'/>
        <source file='/vm/base.qcow2'/>
      </backingStore>
      <target dev='vda' bus='virtio'/>
      <serial>one</serial>
      <alias name='virtio-disk0'/>
    </disk>
    <disk type='block' device='disk'>
      <source dev='/dev/vg/web'/>
      <target dev='sda' bus='scsi'/>
      <alias name='scsi0-0-0-0'/>
    </disk>
    ${cd}`)

test('disks are those that the guest can write, by the names that libvirt gives them', () => {
  expect(disksOf(parseDomain(own))).toEqual([
    {
      ...{ name: 'vda', bytes: 0, bus: 'virtio', device: 'virtio-disk0', cache: 'writethrough' },
      ...{ iothread: true, path: '/vm/web.qcow2', format: 'qcow2' },
    },
    { name: 'sda', bytes: 0, bus: 'scsi', device: 'scsi0-0-0-0', path: '/dev/vg/web', format: 'raw' },
  ])
})

test('a disk on a controller with a thread of its own has that thread', () => {
  const threaded = own.replace(
    '<disk',
    "<controller type='scsi' model='virtio-scsi'><driver iothread='1'/></controller><disk",
  )
  expect(disksOf(parseDomain(threaded)).map(({ iothread }) => iothread)).toEqual([true, true])
})

test('so has one whose queues are spread over several, as newer libvirt writes it', () => {
  const spread = "<driver name='qemu' type='raw'><iothreads><iothread id='1'/></iothreads></driver>"
  const xml = domain(`<disk type='file' device='disk'>${spread}<target dev='vda' bus='virtio'/></disk>`)
  expect(disksOf(parseDomain(xml)).map(({ iothread }) => iothread)).toEqual([true])
})

const disks = (...named: [name: string, path: string][]): Disk[] =>
  named.map(([name, path]) => ({ name, path, bytes: 512, bus: 'virtio', format: 'raw' }))

test('places go out of a description, with what belongs to their format, and others come in', () => {
  const neutral = formatDomain(withoutPlaces(parseDomain(own)))
  expect(neutral).toBe(
    domain(`<disk type="file" device="disk">
      <driver name="qemu" cache="writethrough" discard="unmap" iothread="1">
      </driver>
      <target dev="vda" bus="virtio"/>
      <serial>one</serial>
      <alias name="virtio-disk0"/>
    </disk>
    <disk type="file" device="disk">
      <target dev="sda" bus="scsi"/>
      <alias name="scsi0-0-0-0"/>
    </disk>
    ${cd.replaceAll("'", '"')}`).replaceAll("'", '"'),
  )
  const there = disks(['sda', import.meta.filename], ['vda', import.meta.dirname])
  const placed = withPlaces(parseDomain(neutral), there)
  expect(disksOf(placed)).toMatchObject([
    { name: 'vda', path: import.meta.dirname, format: 'raw' },
    { name: 'sda', path: import.meta.filename, format: 'raw' },
  ])
  expect(formatDomain(placed)).toContain(`<driver name="qemu" type="raw"/>
      <source file="${import.meta.filename}"/>`)
  // Again, with others.
  expect(disksOf(withPlaces(placed, there.toReversed()))).toEqual(disksOf(placed))
})

test.each([[disks(['vda', '/a'])], [disks(['vda', '/a'], ['sdb', '/b'])], [[]]])(
  'a description with other disks than the guest has is refused: %j',
  (wrong) => {
    expect(() => withPlaces(parseDomain(own), wrong)).toThrow(/has the writable disks vda, sda/)
  },
)
