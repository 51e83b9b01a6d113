/** Where a screen is shown, and who may see it. On guests: test/guest/screens.test.ts. */
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import {
  assertGuarded,
  parseVnc,
  readPassword,
  screenOptions,
  vncOptions,
  writeSecret,
} from '../../src/qemu/screen.ts'

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
    expect(() => assertGuarded({ address })).toThrow(/--vnc-password-file/)
    expect(() => assertGuarded({ address, password: 'x' })).not.toThrow()
  }
  for (const address of ['127.0.0.1', '::1'] as const) expect(() => assertGuarded({ address })).not.toThrow()
})

test('the number that was asked for is the one, but for a standby, where any will do', () => {
  const vnc = { address: '::1', display: 4 } as const
  expect(vncOptions(vnc, '/s', false)).toEqual(['-vnc', '[::1]:4'])
  expect(vncOptions(vnc, '/s', true)).toEqual(['-vnc', '[::1]:4,to=99'])
  expect(vncOptions({ address: '127.0.0.1' }, '/s', false)).toEqual(['-vnc', '127.0.0.1:0,to=99'])
  expect(vncOptions(undefined, '/s', true)).toEqual([])
})

test('a password is on no command line', () => {
  const options = vncOptions({ address: '127.0.0.1', password: 'sesame' }, '/a,b/vnc.secret', false)
  expect(options.join(' ')).toBe(
    '-object secret,id=subpage-vnc,format=raw,file=/a,,b/vnc.secret -vnc 127.0.0.1:0,to=99,password-secret=subpage-vnc',
  )
  const directory = mkdtempSync(join(tmpdir(), 'subpage-screen-'))
  const path = join(directory, 'vnc.secret')
  writeSecret({ password: 'sesame' }, path)
  expect([readFileSync(path, 'utf8'), statSync(path).mode & 0o777]).toEqual(['sesame', 0o600])
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
