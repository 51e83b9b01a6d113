/** What is said of memory that was plugged in or out. With a real QEMU: test/guest/memory-backends.test.ts, test/guest/libvirt-failover.test.ts. */
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { type MemoryDevice, memoryPart, PluggedMemory } from '../../src/qemu/plugged-memory.ts'

const mib = 2 ** 20
const directory = mkdtempSync(join(tmpdir(), 'subpage-plugged-'))
const status = join(directory, 'shim.status')
afterAll(() => rmSync(directory, { recursive: true }))

const dimm: MemoryDevice = {
  type: 'dimm',
  data: { id: 'dimm0', addr: 2 ** 32, slot: 0, size: 128 * mib },
}
/** As the shim does it. */
function report(unplugged: number): void {
  writeFileSync(`${status}.next`, JSON.stringify({ unplugged }))
  renameSync(`${status}.next`, status)
}
let memory: PluggedMemory
beforeEach(() => {
  report(0)
  memory = new PluggedMemory(status)
})

test('a machine without room for memory devices is not asked', () => {
  memory.looked(0, [])
  expect(memory.commands).toEqual([])
  expect(memory.difference).toBeUndefined()
})

test('what is plugged in or out since the last look is seen in the next pause', () => {
  memory.looked(2, [dimm])
  expect(memory.commands).toEqual([{ execute: 'query-memory-size-summary' }])
  memory.paused({ 'base-memory': 512 * mib, 'plugged-memory': 128 * mib })
  expect(memory.difference).toBeUndefined()
  memory.paused({ 'plugged-memory': 256 * mib })
  expect(memory.difference).toEqual({ what: '256 MiB are plugged in, and were 128 MiB', lasting: false })
  memory.paused({ 'plugged-memory': 0 })
  expect(memory.difference).toMatchObject({ lasting: false })
  memory.looked(2, [])
  expect(memory.difference).toBeUndefined()
})

test('a device that has gone is one, whatever was plugged in behind it', () => {
  const stamp = { seconds: 0, microseconds: 0 }
  memory.looked(1, [dimm])
  memory.heard({ event: 'DEVICE_DELETED', data: { device: 'net0' }, timestamp: stamp })
  memory.heard({ event: 'DEVICE_DELETED', data: { path: '/machine/x' }, timestamp: stamp })
  expect(memory.difference).toBeUndefined()
  memory.heard({ event: 'DEVICE_DELETED', data: { device: 'dimm0' }, timestamp: stamp })
  memory.paused({ 'plugged-memory': 128 * mib })
  expect(memory.difference).toEqual({ what: 'the memory dimm0 was plugged out', lasting: false })
  memory.looked(1, [dimm])
  expect(memory.difference).toBeUndefined()
})

test('a memory backend that QEMU has given up does not come back', () => {
  memory.looked(1, [dimm])
  memory.paused({ 'plugged-memory': 128 * mib })
  expect(memory.difference).toBeUndefined()
  report(1)
  expect(memory.difference).toMatchObject({ what: expect.stringMatching(/unplugged \(1 of/), lasting: true })
  memory.looked(1, [dimm])
  expect(memory.difference).toMatchObject({ lasting: true })
})

test('without the shim nothing is known of it', () => {
  rmSync(status)
  expect(new PluggedMemory(status).difference).toBeUndefined()
})

test('a device is known by its name, its size and its place', () => {
  expect(memoryPart(dimm)).toBe('memory dimm0 of 128 MiB at 0x100000000 in slot 0')
})
