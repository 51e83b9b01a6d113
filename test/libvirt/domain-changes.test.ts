/** A domain that runs otherwise than its definition says is not taken for what the other host would start. */
import { expect, test } from 'vitest'
import { changeOf } from '../../src/libvirt/domain-changes.ts'
import { parseDomain } from '../../src/libvirt/domain-xml.ts'

const card = (slot: number, more = '') =>
  `<interface type='bridge'><mac address='52:54:00:00:00:0${slot}'/><model type='virtio'/>${more}<address type='pci' slot='0x0${slot}'/></interface>`
const disk = (name: string, place: string) =>
  `<disk type='file' device='disk'><source file='${place}'/><target dev='${name}' bus='virtio'/></disk>`
const domain = (devices: string, memory = '1048576', machine = 'pc-q35-7.2', vcpu = '<vcpu>2</vcpu>') =>
  parseDomain(
    `<domain type='kvm'><name>web</name><memory>${memory}</memory>${vcpu}<os><type machine='${machine}'>hvm</type></os><devices>${devices}</devices></domain>`,
  )
const own = domain(card(1) + disk('vda', '/a'))

test('what libvirt adds to a domain that runs is no change', () => {
  const more = "<target dev='vnet0'/><alias name='net0'/>"
  const live = domain(`${disk('vda', '/b')}${card(1, more)}<graphics type='vnc' port='5900'/>`)
  expect(changeOf(live, own)).toBeUndefined()
})

test('a card on a network over a bridge of the host is one of that bridge when the domain runs', () => {
  const onNetwork = (type: string, source: string) =>
    domain(card(1).replace("type='bridge'", `type='${type}'`).replace('<model', `<source ${source}/><model`))
  const defined = onNetwork('network', "network='lan'")
  expect(changeOf(onNetwork('bridge', "network='lan' bridge='br0'"), defined)).toBeUndefined()
  expect(changeOf(onNetwork('bridge', "bridge='br0'"), defined)).toMatch(/^interface bridge/)
})

const dimm = (base = '', size = 131072) =>
  `<memory model='dimm'><target><size unit='KiB'>${size}</size><node>0</node></target><address type='dimm' slot='0' ${base}/></memory>`

test('where the memory of a memory device begins libvirt says of a domain that runs; its size counts', () => {
  expect(changeOf(domain(dimm("base='0x100000000'")), domain(dimm()))).toBeUndefined()
  expect(changeOf(domain(dimm()), domain(''))).toMatch(/^memory dimm 131072 0 dimm:0/)
  expect(changeOf(domain(dimm()), domain(dimm('', 262144)))).toMatch(/^memory dimm 131072/)
})

test.each([
  ['a card was plugged', domain(card(1) + disk('vda', '/a') + card(2)), /^interface bridge virtio 52:.*02 /],
  ['a disk was unplugged', domain(card(1)), /^disk file disk vda virtio/],
  ['a card is elsewhere', domain(card(3) + disk('vda', '/a')), /^interface/],
  ['memory', domain(card(1) + disk('vda', '/a'), '2097152'), /^memory/],
  ['the machine', domain(card(1) + disk('vda', '/a'), undefined, 'pc-q35-8.0'), /^os\/type/],
  [
    'processors',
    domain(card(1) + disk('vda', '/a'), undefined, undefined, "<vcpu current='1'>2</vcpu>"),
    /^vcpu/,
  ],
])('%s', (_, live, part) => {
  expect(changeOf(live, own)).toMatch(part)
})
