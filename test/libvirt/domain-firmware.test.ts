/** UEFI in a description: each host has its own build, and its own file of variables. */
import { expect, test } from 'vitest'
import {
  firmwareOfDomain,
  firmwareRefusal,
  withFirmware,
  withoutFirmware,
} from '../../src/libvirt/domain-firmware.ts'
import { formatDomain, parseDomain, rootOf } from '../../src/libvirt/domain-xml.ts'
import { findFirmware } from '../../src/qemu/firmware.ts'

const domain = (os: string, attributes = '') => `<domain type="kvm">
  <name>web</name>
  <os${attributes}>
    <type arch="x86_64" machine="pc-q35-7.2">hvm</type>${os}
  </os>
</domain>
`
const chosen = (code: string) =>
  domain(`
    <loader readonly="yes" type="pflash">${code}</loader>
    <nvram template="/x">/var/lib/libvirt/qemu/nvram/web_VARS.fd</nvram>`)

test('the build that runs is one of those that both hosts have, by its kind', () => {
  const { code } = findFirmware('uefi')
  const nvram = '/var/lib/libvirt/qemu/nvram/web_VARS.fd'
  expect(firmwareOfDomain(parseDomain(chosen(code)))).toEqual({ kind: 'uefi', code, nvram })
  expect(firmwareOfDomain(parseDomain(domain('')))).toBeUndefined()
  expect(() => firmwareOfDomain(parseDomain(chosen('/opt/own.fd')))).toThrow(
    /os loader: \/opt\/own.fd is neither/,
  )
})

test.each([
  chosen('/code.fd'),
  domain(
    `
    <firmware>
      <feature enabled="no" name="enrolled-keys"/>
    </firmware>
    <loader secure="no"/>`,
    ' firmware="efi"',
  ),
])('a description says nothing of it, until a host puts its own in', (own) => {
  expect(formatDomain(withoutFirmware(parseDomain(own)))).toBe(domain(''))
  const placed = withFirmware(parseDomain(own), {
    kind: 'uefi',
    code: '/there/code.fd',
    nvram: '/there/vars.fd',
  })
  expect(formatDomain(placed)).toBe(
    domain(`
    <loader readonly="yes" secure="no" type="pflash">/there/code.fd</loader>
    <nvram>/there/vars.fd</nvram>`),
  )
})

test('Secure Boot has system management mode', () => {
  const firmware = { kind: 'secure-boot' as const, code: '/code.fd', nvram: '/vars.fd' }
  const placed = formatDomain(withFirmware(parseDomain(chosen('/x')), firmware))
  expect(placed).toContain('secure="yes"')
  expect(placed).toMatch(/<features>\s*<smm state="on"\/>\s*<\/features>/)
})

test('SeaBIOS stays as it is', () => {
  const own = domain('\n    <loader type="rom">/usr/share/seabios/bios.bin</loader>')
  expect(formatDomain(withFirmware(withoutFirmware(parseDomain(own)), undefined))).toBe(own)
})

test.each([
  ['<loader readonly="yes" type="pflash" stateless="yes">/c.fd</loader>', /forgets its variables/],
  ['<loader type="pflash" readonly="no">/c.fd</loader>', /one file/],
  ['<loader type="pflash">/c.fd</loader><nvram type="block"/>', /not in a file of this host/],
  ['<loader type="pflash">/c.fd</loader><nvram format="qcow2"/>', /no raw file/],
])('%s', (os, reason) => {
  expect(firmwareRefusal(rootOf(parseDomain(domain(os))))).toMatch(reason)
})
