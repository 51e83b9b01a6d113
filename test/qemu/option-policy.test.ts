/** What a guest may be started with: each way to reach outside is tried. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
import { readOptions } from '../../src/qemu/option-policy.ts'
import { doubleCommas } from '../../src/qemu/option-syntax.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-images-'))
const images = [join(directory, 'images')]
const file = join(directory, 'images/vmlinuz')
const outside = join(directory, 'secret')
const link = join(directory, 'images/link')
mkdirSync(join(directory, 'images'))
for (const path of [file, outside, join(directory, 'images/a,b')]) writeFileSync(path, 'x')
symlinkSync(outside, link)
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const refusal = (options: string[]): string => {
  try {
    readOptions(options, images)
    return 'accepted'
  } catch (error) {
    expect(error).toBeInstanceOf(SubpageError)
    expect((error as SubpageError).code).toBe('GUEST_UNPROTECTABLE')
    return (error as SubpageError).message
  }
}

const accepted: string[][] = [
  ['-object', 'memory-backend-ram,id=m0,size=512M', '-numa', 'node,nodeid=0,cpus=0-1,memdev=m0'],
  [
    '-object',
    'memory-backend-ram,id=m1,size=128M',
    '-device',
    'pc-dimm,id=dimm0,memdev=m1,node=0,slot=0,addr=0x100000000',
  ],
  ['-numa', 'dist,src=0,dst=1,val=20', '-numa', 'cpu,node-id=1,socket-id=0,core-id=1,thread-id=0'],
  ['-audiodev', 'none,id=quiet', '-device', 'ich9-intel-hda', '-device', 'hda-duplex,audiodev=quiet'],
  ['-audiodev', 'driver=none,id=quiet', '-device', 'AC97,audiodev=quiet'],
  ['-smp', '2'],
  ['-smp', 'cpus=4,cores=2,threads=2'],
  ['-cpu', 'max,-avx512f,+x2apic,vendor=GenuineIntel'],
  ['-kernel', file, '-initrd', file, '-append', 'console=ttyS0 root=/dev/vda, quiet', '-no-reboot'],
  ['-M', 'pc-q35-7.2,hpet=off,smm=off'],
  ['--machine', 'type=pc'],
  ['-drive', `file=${file},readonly=on,if=virtio,format=raw`],
  ['-drive', `file=${doubleCommas(join(directory, 'images/a,b'))},read-only=on,if=none,id=d0`],
  ['-drive', `file=${file},media=cdrom`],
  ['-cdrom', file],
  ['-blockdev', `driver=file,filename=${file},node-name=f0,read-only=on`],
  ['-blockdev', 'driver=qcow2,file=f0,node-name=q0,read-only=on'],
  ['-blockdev', `driver=raw,file.driver=file,file.filename=${file},node-name=r0,read-only=on`],
  ['-device', 'virtio-blk-pci,drive=d0,serial=abc'],
  ['-device', 'driver=virtio-rng-pci,rng=rng0'],
  ['-object', 'rng-random,id=rng0,filename=/dev/urandom'],
  ['-object', 'rng-builtin,id=rng1'],
  ['-netdev', 'tap,id=n0,ifname=tap0,script=no,downscript=no,vhost=off'],
  ['-device', 'virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56,romfile='],
  ['-nic', 'none', '-vga', 'std', '-usb', '-usbdevice', 'tablet'],
  ['-rtc', 'base=utc,clock=vm'],
  ['-boot', 'order=dc,menu=on'],
  ['-smbios', 'type=1,manufacturer=Example Inc.,serial=42'],
  ['-fw_cfg', 'name=opt/org.example/key,string=value with spaces'],
  ['-global', 'ICH9-LPC.disable_s3=1'],
  ['-bios', 'bios-256k.bin'],
  ['-action', 'panic=shutdown,watchdog=reset'],
]

const files = 'a directory from which guests may read|does not exist|not a regular file|the whole path'
const refused: [options: string[], reason: RegExp][] = [
  // Channels to the outside
  ...[
    ['-chardev', 'socket,id=c,path=/tmp/x'],
    ['-chardev', `file,id=c,path=${file}`],
    ['-serial', 'tcp:192.0.2.1:1'],
    ['-parallel', 'file:/etc/x'],
    ['-debugcon', 'file:/etc/x'],
  ].map((options): [string[], RegExp] => [options, /channel|console/]),
  ...['-monitor', '-qmp', '-qmp-pretty', '-mon'].map((flag): [string[], RegExp] => [
    [flag, 'stdio'],
    /monitor/,
  ]),
  ...['-gdb', '-vnc', '-spice'].map((flag): [string[], RegExp] => [[flag, ':0'], /opens a port/]),
  [['-s'], /opens a port/],
  [['-tpmdev', 'emulator,id=t,chardev=c'], /swtpm/],
  [['-device', 'tpm-crb,tpmdev=t'], /swtpm/],
  // Code and rights
  [['-plugin', '/tmp/evil.so'], /loads code/],
  [['-runas', 'root'], /rights/],
  [['-run-with', 'user=root'], /rights/],
  [['-chroot', '/'], /rights/],
  [['-sandbox', 'off'], /sets it already/],
  [['-readconfig', '/etc/passwd'], /nobody has checked/],
  [['-writeconfig', '/etc/cron.d/x'], /writes a file/],
  [['-set', 'drive.d0.file=/etc/shadow'], /after they were checked/],
  [['-D', '/etc/x'], /writes a file/],
  [['-trace', 'file=/etc/x'], /writes a file/],
  [['-L', '/tmp'], /read files/],
  [['-acpitable', 'file=/etc/shadow'], /reads a file/],
  [['-daemonize'], /subpage/],
  [['-add-fd', 'fd=3,set=1'], /descriptor/],
  [['-netdev', 'tap,id=n0,ifname=tap0'], /script=no/],
  [['-netdev', 'tap,id=n0,ifname=tap0,script=/tmp/evil,downscript=no'], /script=/],
  [['-netdev', 'tap,id=n0,ifname=tap0,script=no,downscript=no,helper=/tmp/evil'], /runs a program/],
  [['-netdev', 'tap,id=n0,ifname=tap0,script=no,downscript=no,script=/tmp/evil'], /script=/],
  [['-netdev', 'tap,id=n0,ifname=sp0123456789-0,script=no,downscript=no'], /ifname=/],
  [['-netdev', 'tap,id=n0,fd=3,script=no,downscript=no'], /descriptor/],
  [['-netdev', 'bridge,id=n0,br=br0'], /runs a program/],
  [['-netdev', 'user,id=n0'], /die with it/],
  [['-netdev', 'user,id=n0,guestfwd=tcp:10.0.2.1:1-cmd:sh'], /die with it/],
  [['-netdev', 'socket,id=n0,connect=192.0.2.1:1'], /connection of its own/],
  [['-netdev', 'stream,id=n0,addr.type=unix,addr.path=/run/x'], /connection of its own/],
  [['-netdev', '{"type":"user","id":"n0"}'], /write it as/],
  [['-netdev', 'hubport,id=n0,hubid=0'], /only tap/],
  [['-netdev', 'tap,id=n0,ifname=t,script=no,downscript=no,vhost=on'], /vhost/],
  [['-nic', 'user'], /die with it/],
  [['-nic', 'tap,ifname=t,script=no,downscript=no'], /-netdev and -device/],
  // Files
  ...[
    outside,
    link,
    '/etc/shadow',
    `${directory}/images/../secret`,
    'vmlinuz',
    `${directory}/images`,
  ].flatMap((path): [string[], RegExp][] => [
    [['-kernel', path], new RegExp(files)],
    [['-initrd', path], new RegExp(files)],
    [['-cdrom', path], new RegExp(files)],
    [['-bios', `/x/../${path}`], new RegExp(files)],
    [['-drive', `file=${path},readonly=on`], new RegExp(files)],
    [['-blockdev', `driver=file,filename=${path},node-name=x,read-only=on`], new RegExp(files)],
    [['-blockdev', `driver=raw,file.driver=file,file.filename=${path},read-only=on`], new RegExp(files)],
  ]),
  [['-initrd', `${file},/etc/shadow`], /spaces and commas/],
  [['-kernel', `${file} /etc/shadow`], /spaces and commas/],
  [['-drive', `file=${file},file=/etc/shadow,readonly=on`], new RegExp(files)],
  [['-drive', `file=${file}`], /a writable disk is not among/],
  [['-drive', `file=${file},readonly=on,readonly=off`], /readonly=off/],
  [['-drive', 'file=nbd://192.0.2.1/x,readonly=on'], /whole path/],
  [['-drive', 'file=json:{},readonly=on'], /whole path/],
  [['-drive', 'file=fat:rw:/etc,readonly=on'], /whole path/],
  [['-drive', `file=${file},readonly=on,format=vvfat`], /format=/],
  [['-drive', `file=${file},readonly=on,snapshot=on`], /snapshot=/],
  [['-drive', `file=${file},readonly=on,backing.file=/etc/shadow`], /backing\.file=/],
  [['-drive', `file=${file},readonly=on,file.driver=nbd`], /file\.driver=/],
  [['-drive', 'driver=nbd,host=192.0.2.1,readonly=on'], /names no file/],
  [['-drive', `file=${file},readonly=on,if=pflash`], /if=/],
  [['-blockdev', '{"driver":"file","filename":"/etc/shadow"}'], /key=value/],
  [['-blockdev', 'driver=nbd,node-name=n,read-only=on'], /driver=nbd/],
  [['-blockdev', `driver=file,filename=${file},node-name=f0`], /a writable disk is not among/],
  [['-hda', file], /not be on the other host/],
  [['-pflash', file], /give --firmware uefi/],
  [['-virtfs', 'local,path=/,mount_tag=x,security_model=none'], /not be on the other host/],
  [['-fsdev', 'local,id=x,path=/'], /not be on the other host/],
  [['-fw_cfg', 'name=opt/x,file=/etc/shadow'], /file=/],
  [['-fw_cfg', 'name=etc/x,string=y'], /name=/],
  [['-smbios', 'file=/etc/shadow'], /file=/],
  [['-smbios', 'type=11,path=/etc/shadow'], /path=/],
  [['-boot', 'splash=/etc/shadow'], /splash=/],
  // Objects and devices
  [
    ['-object', 'memory-backend-memfd,id=m,size=1G'],
    /NUMA nodes and memory devices goes with memory-backend-ram/,
  ],
  [['-object', 'memory-backend-ram,id=m,size=1G,prealloc=on'], /prealloc=/],
  [['-object', 'memory-backend-ram,id=subpage-ram,size=1G'], /subpage's own/],
  [['-numa', 'node,mem=1G'], /mem=/],
  [['-numa', 'hmat-lb,initiator=0'], /type=/],
  [['-object', 'memory-backend-file,id=m,size=1G,mem-path=/etc/x,share=on'], /guest RAM/],
  [['-object', 'secret,id=s,file=/etc/shadow'], /open files/],
  [['-object', 'tls-creds-x509,id=t,dir=/etc'], /open files/],
  [['-object', 'filter-dump,id=f,netdev=n0,file=/etc/x'], /open files/],
  [['-object', 'rng-random,id=r,filename=/dev/mem'], /filename=/],
  [['-object', 'rng-egd,id=r,chardev=c'], /open files/],
  [['-audiodev', 'alsa,id=a'], /would not have the sound device; a silent one/],
  [['-audiodev', 'none,id=a,out.dev=x'], /out\.dev/],
  [['-audiodev', 'none,driver=wav,id=a'], /driver/],
  [['-audio', 'none'], /-audiodev none/],
  [['-device', 'usb-audio'], /does not save its state/],
  [['-object', '{"qom-type":"secret"}'], /open files/],
  [['-object', 'iothread,id=subpage-x'], /subpage's own/],
  [['-device', 'loader,file=/etc/shadow,addr=0x1000'], /reads a file/],
  [['-device', 'virtio-net-pci,romfile=/etc/shadow'], /romfile/],
  [['-device', 'vfio-pci,host=01:00.0'], /passed-through/],
  [['-device', 'usb-host,hostbus=1'], /device of this host/],
  [['-device', 'usb-mtp,rootdir=/'], /files of the host/],
  [['-device', 'virtio-9p-pci,fsdev=x,mount_tag=y'], /files of the host/],
  [['-device', 'vhost-user-blk-pci,chardev=c'], /outside QEMU/],
  [['-device', 'virtserialport,chardev=c'], /channel/],
  [['-device', 'isa-serial,chardev=subpage-console'], /channel/],
  [['-device', 'usb-kbd,chardev=c'], /chardev=/],
  [['-device', 'e1000,driver=loader'], /two devices/],
  [['-device', 'loader,driver=e1000'], /reads a file/],
  [['-device', '{"driver":"loader","file":"/etc/shadow"}'], /DEVICE,property/],
  [['-device', 'ramfb'], /does not save its state/],
  [['-device', 'virtio-vga-gl'], /outside QEMU/],
  [['-device', 'sb16'], /not on the list/],
  [['-device', 'virtio-rng-pci,rng=/x'], /only letters/],
  [['-vga', 'vmware'], /form that is not on the list/],
  [['-global', 'e1000.romfile=/etc/shadow'], /form/],
  [['-global', 'migration.send-configuration=on'], /form/],
  // The machine
  [['-machine', 'q35,dumpdtb=/etc/x'], /dumpdtb=/],
  [['-machine', 'q35,kernel=/etc/shadow'], /kernel=/],
  [['-machine', 'q35,accel=kvm'], /--accel/],
  [['-machine', 'q35,memory-backend=x'], /guest RAM/],
  [['-machine', 'x-remote'], /type=/],
  [['-cpu', 'max,x=/etc'], /form/],
  [['-m', '4G'], /--ram/],
  [['-accel', 'kvm'], /--accel/],
  [['-incoming', 'exec:sh'], /standby/],
  [['-no-shutdown'], /must end/],
  [['-action', 'shutdown=pause'], /shutdown=/],
  [['-action', 'panic=pause'], /panic=/],
  [['-watchdog-action', 'pause'], /form/],
  [['-name', 'x,process=y'], /name/],
  [['-icount', 'shift=0,rr=record,rrfile=/etc/x'], /not on the list/],
  [['disk.img'], /not an option/],
  [['-append'], /value is missing/],
  [['-append', 'quiet\u001b[2J'], /control characters/],
  [['-append', 'a\nb'], /control characters/],
  [['-append', 'x'.repeat(5000)], /longer/],
  [['-__proto__', 'x'], /not on the list/],
  [['-constructor', 'x'], /not on the list/],
  [Array(300).fill('-no-reboot'), /256 at most/],
]

describe('options', () => {
  for (const options of accepted)
    test(`${options.join(' ')} can be had`, () => expect(refusal(options)).toBe('accepted'))

  for (const [options, reason] of refused)
    test(`${options.join(' ').slice(0, 120)} is refused`, () => expect(refusal(options)).toMatch(reason))

  test('the machine type is taken out, and the rest stays as it is', () => {
    expect(readOptions(['--smp', '2', '-M', 'type=pc,hpet=off', '-no-reboot'], images)).toEqual({
      type: 'pc,hpet=off',
      options: ['-smp', '2', '-no-reboot'],
    })
  })

  test('whatever was accepted is accepted again, unchanged', () => {
    for (const given of accepted) {
      const once = readOptions(given, images)
      expect(readOptions(['-machine', once.type, ...once.options], images)).toEqual(once)
    }
  })

  test('nothing but a SubpageError comes of any strings', () => {
    const word = fc.oneof(
      fc.constantFrom(...accepted.flat(), ...refused.flatMap(([options]) => options)),
      fc.string(),
    )
    fc.assert(
      fc.property(fc.array(word, { maxLength: 8 }), (options) => {
        refusal(options)
      }),
    )
  })
})
