/** What is added to a domain's description, and that exactly it is taken back, whatever else is in there. */
import { expect, test } from 'vitest'
import { domainFiles } from '../../src/libvirt/domain-files.ts'
import { changesOf, refusalsOf } from '../../src/libvirt/domain-policy.ts'
import { formatDomain, parseDomain } from '../../src/libvirt/domain-xml.ts'
import { isPrepared, isSame, prepared, unprepared } from '../../src/libvirt/preparation.ts'

const files = domainFiles('/var/lib/libvirt/qemu/subpage', 'web')

const plain = `<domain type='kvm'>
  <name>web</name>
  <!-- why it is here -->
  <memory unit='KiB'>1000001</memory>
  <devices>
    <interface type='network'>
      <mac address='52:54:00:00:00:01'/>
      <model type='virtio'/>
    </interface>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:02'/>
      <model type='virtio'/>
      <driver queues='2'/>
    </interface>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:03'/>
      <model type='e1000e'/>
    </interface>
  </devices>
</domain>
`
const crowded = `<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web</name>
  <metadata>
    <other:note xmlns:other='urn:other'/>
  </metadata>
  <memory unit='KiB'>524288</memory>
  <devices/>
  <qemu:commandline>
    <qemu:arg value='-global'/>
    <qemu:arg value='migration.send-configuration=off'/>
    <qemu:env name='LD_PRELOAD' value='/opt/other.so'/>
    <qemu:env name='OTHER' value='1'/>
  </qemu:commandline>
</domain>
`
/** Of two NUMA nodes, in any order. */
const nodes = plain.replace(
  '<devices>',
  `<cpu><numa>
    <cell id='1' cpus='1' memory='65536' unit='KiB'/>
    <cell id='0' cpus='0' memory='131072' unit='KiB'/>
  </numa></cpu><devices>`,
)
/** And of a memory device beside them. */
const dimm = nodes.replace(
  '<devices>',
  `<devices>
    <memory model='dimm'>
      <target>
        <size unit='KiB'>32768</size>
        <node>1</node>
      </target>
      <address type='dimm' slot='0'/>
    </memory>`,
)
/** As virt-manager makes it. */
const spice = `<domain type='kvm'>
  <name>web</name>
  <memory unit='KiB'>524288</memory>
  <devices>
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <channel type='spicevmc'>
      <target type='virtio' name='com.redhat.spice.0'/>
      <address type='virtio-serial' controller='0' bus='0' port='2'/>
    </channel>
    <graphics type='spice' port='5900' autoport='no' listen='127.0.0.1' passwd='sesame' defaultMode='insecure'>
      <listen type='address' address='127.0.0.1'/>
      <image compression='off'/>
    </graphics>
    <audio id='1' type='spice'/>
    <video>
      <model type='qxl' ram='65536' vram='65536' vgamem='16384' heads='1' primary='yes'/>
    </video>
    <redirdev bus='usb' type='spicevmc'/>
    <redirdev bus='usb' type='spicevmc'/>
  </devices>
</domain>
`
const known = [
  { of: 'one with SPICE', xml: spice },
  { of: 'a plain one', xml: plain },
  { of: 'one with options of its own', xml: crowded },
  { of: 'one of several NUMA nodes', xml: nodes },
  { of: 'one with a memory device', xml: dimm },
]
const formatted = (xml: string) => formatDomain(parseDomain(xml))

test.each(known)('$of: all is added once, and taken back exactly', ({ xml }) => {
  const once = prepared(xml, files)
  expect(isPrepared(parseDomain(xml))).toBe(false)
  expect(isPrepared(parseDomain(once))).toBe(true)
  expect(isSame(prepared(once, files), once)).toBe(true)
  expect(isSame(once, xml)).toBe(false)
  expect(unprepared(once)).toBe(formatted(xml))
  expect(unprepared(unprepared(once))).toBe(formatted(xml))
})

test('libvirt writes attributes and spaces in its own way: that is no difference', () => {
  const once = prepared(plain, files)
  const asLibvirt = once
    .replace('<driver queues="2" name="qemu"/>', "<driver name='qemu' queues='2'/>")
    .replaceAll(/\n +/g, '\n')
  expect(asLibvirt).not.toBe(once)
  expect(isSame(asLibvirt, once)).toBe(true)
  expect(isSame(prepared(asLibvirt, files), once)).toBe(true)
})

test('the RAM is whole MiB, as libvirt makes it; comments stay', () => {
  const once = prepared(plain, files)
  expect(once).toContain(`size=${977 * 2 ** 20},`)
  expect(once).toContain('<!-- why it is here -->')
})

test("memory of NUMA nodes stays libvirt's, and the shim is told of it", () => {
  const once = prepared(nodes, files)
  expect(once).not.toContain('memory-backend')
  expect(once).toContain(`name="SUBPAGE_FRESH_RAM" value="${192 * 2 ** 20}"`)
  expect(once).toContain(`name="SUBPAGE_RAM_BACKENDS" value="${128 * 2 ** 20},${64 * 2 ** 20}"`)
})

test('a memory device is behind the nodes', () => {
  const once = prepared(dimm, files)
  expect(once).toContain(`name="SUBPAGE_FRESH_RAM" value="${224 * 2 ** 20}"`)
  expect(once).toContain(
    `name="SUBPAGE_RAM_BACKENDS" value="${[128, 64, 32].map((size) => size * 2 ** 20).join(',')}"`,
  )
})

test('only virtio cards that may have vhost are told to have none', () => {
  const cards = prepared(plain, files).match(/<interface[\s\S]*?<\/interface>/g)!
  expect(cards[0]).toContain('<driver name="qemu"/>')
  expect(cards[1]).toContain('<driver queues="2" name="qemu"/>')
  expect(cards[2]).not.toContain('driver')
})

test('what is preloaded already stays, behind the shim; arguments go before variables', () => {
  const once = prepared(crowded, files)
  expect(once).toContain(`value="${files.shim}:/opt/other.so"`)
  expect(once.lastIndexOf('qemu:arg')).toBeLessThan(once.indexOf('qemu:env'))
})

test('what somebody has added since is kept', () => {
  const later = prepared(plain, files).replace(
    '  </qemu:commandline>',
    '  <qemu:arg value="-no-hpet"/></qemu:commandline>',
  )
  expect(unprepared(later)).toContain('<qemu:arg value="-no-hpet"/>')
  expect(unprepared(later)).not.toMatch(/subpage/i)
})

test('names and places that cannot be', () => {
  expect(() => domainFiles('/x', 'a b')).toThrow('cannot be a guest name')
  expect(() => domainFiles(`/${'x'.repeat(100)}`, 'web')).toThrow('longer than the path of a socket')
  expect(() => parseDomain('<network/>')).toThrow('it has no <domain>')
  expect(() => parseDomain('no XML')).toThrow('cannot be read')
})

test('SPICE becomes VNC: with its password and place, without what only its clients use', () => {
  const once = prepared(spice, files)
  expect(once).toMatch(
    /<graphics type="vnc" [^>]*listen="127.0.0.1" passwd="sesame" port="-1" autoport="yes">\s*<listen type="address" address="127.0.0.1"\/>\s*<\/graphics>/,
  )
  expect(once).toContain('<audio id="1" type="none"/>')
  expect(once).toContain('<model type="qxl"')
  expect(once).toContain('org.qemu.guest_agent.0')
  // The password is in no second place, which libvirt would show to everybody.
  expect(once.match(/sesame/g)).toHaveLength(1)
  const devices = once.slice(once.indexOf('<devices>'))
  expect(devices).not.toContain('spice')
})

const place = (port: number) => `<address type="virtio-serial" controller="0" bus="0" port="${port}"/>`
const agentChannel = (port: number) =>
  `<channel type="unix"><target type="virtio" name="org.example.more"/>${place(port)}</channel>`

test.each([
  {
    of: 'a disk was added',
    change: (xml: string) => xml.replace('<devices>', '<devices><disk type="file"/>'),
  },
  {
    of: 'a channel was added',
    change: (xml: string) => xml.replace('<graphics', `${agentChannel(3)}<graphics`),
  },
  {
    of: 'a channel was taken out',
    change: (xml: string) => xml.replace(/<channel[\s\S]*?<\/channel>\s*/, ''),
  },
])('SPICE comes back although $of since', ({ change }) => {
  const again = unprepared(change(prepared(spice, files)))
  // Kinds of devices are put into an order by libvirt.
  const lines = (xml: string) => xml.split('\n').map((line) => line.trim())
  expect(lines(again).sort()).toEqual(lines(formatted(change(formatted(spice)))).sort())
  expect(refusalsOf(parseDomain(again)).filter(({ part }) => /graphics|audio|redirdev/.test(part))).toEqual(
    [],
  )
})

test('what comes back leaves its place to a device that has it by now', () => {
  const later = prepared(spice, files).replace('<graphics', `${agentChannel(2)}<graphics`)
  const again = unprepared(later)
  expect(again).toMatch(/spicevmc/)
  expect(again.split(place(2))).toHaveLength(2)
  expect(again.indexOf(place(2))).toBeGreaterThan(again.indexOf('org.example.more'))
})

test('a screen of VNC that somebody has taken out does not come back as one of SPICE', () => {
  const later = prepared(spice, files).replace(/<graphics[\s\S]*?<\/graphics>\s*/, '')
  expect(unprepared(later)).not.toContain('<graphics')
})

test('what SPICE becomes is said before it is done', () => {
  expect(changesOf(parseDomain(spice)).map(({ part, reason }) => `${part}: ${reason}`)).toEqual([
    expect.stringMatching(/^channel spicevmc: prepare takes it out/),
    expect.stringMatching(/^graphics spice: prepare makes VNC of it/),
    expect.stringMatching(/^audio spice: prepare makes it silent/),
    expect.stringMatching(/^redirdev spicevmc: prepare takes it out/),
    expect.stringMatching(/^redirdev spicevmc: prepare takes it out/),
  ])
  const both = parseDomain(spice.replace('<video>', "<graphics type='vnc' port='5901'/><video>"))
  expect(refusalsOf(both).map(({ part, reason }) => `${part}: ${reason}`)).toContainEqual(
    expect.stringMatching(/^graphics spice: .*take this one out/),
  )
})
