/** Where a screen is shown, and who may see it. On guests: test/guest/screens.test.ts. */
import { mkdtempSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import {
  parseVnc,
  readPassword,
  screenOf,
  screenOptions,
  vncOf,
  vncOptions,
  writeScreenFiles,
} from '../../src/qemu/screen.ts'

const certificate = { ca: '/h/ca', cert: '/h/cert', key: '/h/key' }
const paths = { vncSecret: '/a,b/vnc.secret', vncTls: '/a,b/vnc-tls' }

test.each([
  ['auto', { address: '127.0.0.1' }],
  ['7', { address: '127.0.0.1', display: 7 }],
  ['0.0.0.0:12', { address: '0.0.0.0', display: 12 }],
  ['[::1]:auto', { address: '::1' }],
  ['::1:3', { address: '::1', display: 3 }],
  [':::3', { address: '::', display: 3 }],
])('%s is a display', (given, read) => expect(parseVnc(given)).toEqual(read))

test.each(['', 'a', '-1', '100', '192.0.2.1:1', '1,password=off', 'auto:1', ':', 'localhost:1', '1:'])(
  '"%s" is none',
  (given) => expect(() => parseVnc(given)).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' })),
)

test('a screen for the network asks for a password', () => {
  for (const address of ['0.0.0.0', '::'] as const) {
    expect(() => screenOf({ address, tls: true }, certificate)).toThrow(/--vnc-password-file/)
    const guarded = { address, password: 'x' }
    expect(screenOf(guarded, certificate)).toEqual(guarded)
  }
  for (const address of ['127.0.0.1', '::1'] as const)
    expect(screenOf({ address }, undefined)).toEqual({ address })
})

test('an encrypted one takes the certificate of its host, of which others are told nothing', () => {
  const asked = { address: '127.0.0.1', password: 'x', tls: true } as const
  const screen = screenOf(asked, certificate)
  expect(screen).toEqual({ address: '127.0.0.1', password: 'x', certificate })
  expect(vncOf(screen)).toEqual(asked)
  expect(() => screenOf(asked, undefined)).toThrow(/--tls-ca, --tls-cert and --tls-key/)
})

test('the number that was asked for is the one, but for a standby, where any will do', () => {
  const vnc = { address: '::1', display: 4 } as const
  expect(vncOptions(vnc, paths, false)).toEqual(['-vnc', '[::1]:4'])
  expect(vncOptions(vnc, paths, true)).toEqual(['-vnc', '[::1]:4,to=99'])
  expect(vncOptions({ address: '127.0.0.1' }, paths, false)).toEqual(['-vnc', '127.0.0.1:0,to=99'])
  expect(vncOptions(undefined, paths, true)).toEqual([])
})

test('password and key are on no command line', () => {
  const screen = { address: '127.0.0.1', password: 'sesame', certificate } as const
  expect(vncOptions(screen, paths, false).join(' ')).toBe(
    '-object secret,id=subpage-vnc,format=raw,file=/a,,b/vnc.secret -object tls-creds-x509,id=subpage-vnc-tls,endpoint=server,verify-peer=off,dir=/a,,b/vnc-tls -vnc 127.0.0.1:0,to=99,password-secret=subpage-vnc,tls-creds=subpage-vnc-tls',
  )
  const directory = mkdtempSync(join(tmpdir(), 'subpage-screen-'))
  const files = { vncSecret: join(directory, 'vnc.secret'), vncTls: join(directory, 'vnc-tls') }
  writeScreenFiles(screen, files)
  expect([readFileSync(files.vncSecret, 'utf8'), statSync(files.vncSecret).mode & 0o777]).toEqual([
    'sesame',
    0o600,
  ])
  expect(statSync(files.vncTls).mode & 0o777).toBe(0o700)
  expect(readlinkSync(join(files.vncTls, 'server-key.pem'))).toBe('/h/key')
  rmSync(directory, { recursive: true })
})

test.each(['', 'ninechars', 'with it', 'ümlaut', 'a\nb'])(
  'the password "%s" is refused, and not quoted',
  (given) => {
    const refused = () => readPassword(Buffer.from(`${given}\n`), '/the/file')
    expect(refused).toThrow(expect.objectContaining({ code: 'BAD_ARGUMENT' }))
    if (given !== '') expect(refused).not.toThrow(given)
  },
)

test('a machine without a screen gets one, and another keeps its own', () => {
  expect(screenOptions(['-smp', '2'])).toEqual(['-vga', 'std'])
  for (const own of [
    ['-vga', 'virtio'],
    ['-device', 'qxl-vga'],
    ['-device', 'virtio-gpu-pci,id=x'],
    ['-device', 'driver=VGA'],
  ])
    expect(screenOptions(own)).toEqual([])
})
