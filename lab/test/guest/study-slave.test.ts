/**
 * The active slave of the study of synchronisation, in its smallest size: two live guests, of which one is corrected to each
 * checkpoint of the other. `SlavePair` itself compares their memories and devices, and fails when they differ.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { guestWorkloads } from '../../src/guest-workload.ts'
import { leaveOutMemory, loadDevices, saveDevices } from '../../src/sync/slave/device-snapshots.ts'
import {
  measureServed,
  measureSlave,
  type SlaveCell,
  startPrimary,
  startSlave,
} from '../../src/sync/slave/measure.ts'
import { SlaveNetwork } from '../../src/sync/slave/network.ts'
import { servedPort, servedWorkloads } from '../../src/sync/slave/served.ts'
import { askingBytes } from '../../src/sync/slave/slave-cost.ts'
import { KnownWrites } from '../support/known-writes.ts'

test('a slave that runs ahead is corrected to each checkpoint, and what it has is not sent', async () => {
  const cells: SlaveCell[] = []
  const workload = guestWorkloads().find(({ name }) => name === 'shell')!
  {
    await using guest = await startPrimary(new AbortController().signal)
    await using slave = await startSlave(guest)
    await measureSlave(guest, slave, workload, { epochLengths: [25], epochs: 6 }, (cell) => cells.push(cell))
  }
  const [cell] = cells
  expect(cell).toMatchObject({ workload: 'shell', epochMs: 25 })
  expect(cell!.epochs).toHaveLength(6)
  for (const epoch of cell!.epochs) {
    const { dirtyPages, changedPages, differingPages } = epoch
    expect(changedPages).toBeLessThanOrEqual(dirtyPages)
    expect(differingPages).toBeLessThanOrEqual(changedPages)
    expect(epoch.without['whole pages']).toBe(4096 * dirtyPages)
    // Of what did not change, some may differ by the slave's own writes.
    const sent = (epoch.with['whole pages'] - askingBytes(dirtyPages)) / 4096
    expect(sent).toBeGreaterThanOrEqual(differingPages)
    expect(sent).toBeLessThanOrEqual(dirtyPages)
    for (const way of ['lines', 'masked'] as const) {
      const deltas = epoch.with[way] - askingBytes(changedPages)
      if (differingPages === changedPages) expect(deltas).toBe(epoch.without[way])
      else expect(deltas).toBeLessThan(epoch.without[way])
    }
  }
  // It runs: it writes as the guest does, and makes some pages what the guest makes of them.
  expect(cell!.epochs.some(({ changedPages }) => changedPages > 0)).toBe(true)
  expect(cell!.epochs.some(({ slavePages }) => slavePages > 0)).toBe(true)
  expect(cell!.epochs.some(({ differingPages, changedPages }) => differingPages < changedPages)).toBe(true)
})

test('a slave is given the packets of clients outside, and is corrected to each checkpoint', async () => {
  const cells: SlaveCell[] = []
  await using network = await SlaveNetwork.open(servedPort)
  await using guest = await startPrimary(new AbortController().signal, network)
  await using slave = await startSlave(guest, network)
  for (const workload of servedWorkloads)
    await measureServed({ guest, slave, network }, workload, { epochLengths: [100], epochs: 6 }, (cell) =>
      cells.push(cell),
    )
  expect(cells.map(({ workload }) => workload)).toEqual(servedWorkloads.map(({ name }) => name))
  // The server answers while it is stopped, looked at and loaded six times.
  for (const { answered } of cells) expect(answered).toBeGreaterThan(0)
  const { primary, slave: slaves } = network.counts
  expect(slaves).toBeGreaterThan(0)
  expect(slaves).toBeLessThan(primary)
  for (const { epochs } of cells) expect(epochs.some(({ slavePages }) => slavePages > 0)).toBe(true)
})

test('code that was written from outside is what runs once the devices are loaded', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'subpage-slave-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  const { qemu, known } = await KnownWrites.start(directory, 'tiny')
  onTestFinished(() => qemu.end())
  onTestFinished(() => known.close())
  const code = 0x200000
  // mov $letter, %al; jmp *%esi
  const write = (letter: string) => qemu.ram.write(code, Buffer.of(0xb0, letter.charCodeAt(0), 0xff, 0xe6))
  const snapshot = join(directory, 'devices.qcow2')
  const { qmp } = qemu
  await leaveOutMemory(qmp)
  write('a')
  expect(await known.execute(code, 1000)).toBe('a')
  await qmp.run('stop')
  await saveDevices(qmp, snapshot)
  write('b')
  await qmp.run('cont')
  // QEMU has translated it and does not know.
  expect(await known.execute(code, 1000)).toBe('a')
  await qmp.run('stop')
  await loadDevices(qmp, snapshot)
  write('c')
  await qmp.run('cont')
  expect(await known.execute(code, 1000)).toBe('c')
})
