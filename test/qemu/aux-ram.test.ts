/** Which memory beside the RAM goes along. What the shim does with it: test/tracking/shim.test.ts, test/guest/screens.test.ts. */
import { expect, test } from 'vitest'
import { assertSameBlocks, blocksLeftOut, memoryBytes } from '../../src/qemu/aux-ram.ts'

const info = [
  '              Block Name    PSize              Offset               Used              Total',
  '                     ram    4 KiB  0x0000000000000000 0x0000000004000000 0x0000000004000000',
  '   0000:00:01.0/vga.vram    4 KiB  0x0000000004080000 0x0000000001000000 0x0000000001000000',
  '    /rom@etc/acpi/tables    4 KiB  0x00000000050c0000 0x0000000000020000 0x0000000000200000',
  '                 pc.bios    4 KiB  0x0000000004000000 0x0000000000040000 0x0000000000040000',
  '    0000:00:02.0/vga.rom    4 KiB  0x0000000005080000 0x0000000000010000 0x0000000000010000',
  '   0000:00:02.0/vga.vram    4 KiB  0x0000000005480000 0x0000000001000000 0x0000000001000000',
  '',
].join('\r\n')

test('what the guest writes must be in the file, each block of it', () => {
  expect(blocksLeftOut(info, [0x40000, 0x1000000, 0x10000, 0x1000000, 0x200000])).toEqual([])
  expect(blocksLeftOut(info, [0x1000000])).toEqual(['0000:00:02.0/vga.vram'])
  expect(blocksLeftOut(info, [])).toEqual(['0000:00:01.0/vga.vram', '0000:00:02.0/vga.vram'])
})

test('what is read-only may be missing', () => {
  const withoutScreens = info.replaceAll(/^.*vram.*\r\n/gm, '')
  expect(blocksLeftOut(withoutScreens, [])).toEqual([])
})

test('both hosts have the same blocks in the same order', () => {
  expect(() => assertSameBlocks([4096, 8192], [4096, 8192])).not.toThrow()
  for (const found of [[], [8192, 4096], [4096], [4096, 8192, 4096]])
    expect(() => assertSameBlocks(found, [4096, 8192])).toThrow(
      expect.objectContaining({
        code: 'PEER_MISMATCH',
        message: expect.stringContaining('2 blocks of 4, 8 KiB there'),
      }),
    )
})

test('the memory of a guest is its RAM and its blocks', () => {
  const machine = { type: 'q35', ramBytes: 2 ** 20, accel: 'tcg' as const, options: [], nics: [], disks: [] }
  expect(memoryBytes(machine)).toBe(2 ** 20)
  expect(memoryBytes({ ...machine, aux: [4096, 8192] })).toBe(2 ** 20 + 12288)
})
