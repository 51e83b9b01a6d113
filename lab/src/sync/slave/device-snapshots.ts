/**
 * The state of a guest's devices, saved by one QEMU and loaded by another that runs already, as often as wanted: QEMU's own
 * snapshots, in a small qcow2 file, without the memory (x-ignore-shared), which stays with us. Loading a state also has TCG
 * drop all that it has translated, so code that was written from outside before the guest goes on is the code that runs.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { SubpageError } from 'subpage/errors'
import type { Qmp } from 'subpage/qemu/qmp'

const node = 'subpage-snapshot'
const tag = 'devices'
const diskBytes = 2 ** 20
const pollMs = 0.5

/** Once for each QEMU, before the first snapshot. */
export async function leaveOutMemory(qmp: Qmp): Promise<void> {
  await qmp.run('migrate-set-capabilities', {
    capabilities: [{ capability: 'x-ignore-shared', state: true }],
  })
}

/** The guest stands still meanwhile. @param path becomes a file that `loadDevices` reads */
export async function saveDevices(qmp: Qmp, path: string): Promise<void> {
  await job(qmp, 'blockdev-create', { options: { driver: 'file', filename: path, size: 0 } })
  await qmp.run('blockdev-add', fileNode(path))
  try {
    await job(qmp, 'blockdev-create', { options: { driver: 'qcow2', file: fileName, size: diskBytes } })
    await withSnapshots(qmp, () => job(qmp, 'snapshot-save', snapshot))
  } finally {
    await qmp.run('blockdev-del', { 'node-name': fileName })
  }
}

/** The guest stands still, and does so afterwards. QEMU resets the machine first, which writes ROMs into its memory. */
export async function loadDevices(qmp: Qmp, path: string): Promise<void> {
  await qmp.run('blockdev-add', fileNode(path))
  try {
    await withSnapshots(qmp, () => job(qmp, 'snapshot-load', snapshot))
  } finally {
    await qmp.run('blockdev-del', { 'node-name': fileName })
  }
}

const snapshot = { tag, vmstate: node, devices: [node] }
const fileName = `${node}-file`
/** Nothing of it shall outlast the study. */
const fileNode = (filename: string) => ({
  ...{ driver: 'file', 'node-name': fileName, filename },
  cache: { direct: false, 'no-flush': true },
})

/** Only while the snapshots are open are they kept from whoever else opens the file, and what is written may be in QEMU yet. */
async function withSnapshots(qmp: Qmp, work: () => Promise<void>): Promise<void> {
  await qmp.run('blockdev-add', { driver: 'qcow2', 'node-name': node, file: fileName })
  try {
    await work()
  } finally {
    await qmp.run('blockdev-del', { 'node-name': node })
  }
}

interface Job {
  id: string
  status: string
  error?: string
}

/** @throws SubpageError QEMU_FAILED when it fails, GUEST_DIED when QEMU ends meanwhile */
async function job(qmp: Qmp, execute: string, args: Record<string, unknown>): Promise<void> {
  const id = 'subpage-study'
  await qmp.run(execute, { 'job-id': id, ...args })
  for (;;) {
    const found = (await qmp.run<Job[]>('query-jobs')).find((one) => one.id === id)
    if (found?.status === 'concluded') {
      await qmp.run('job-dismiss', { id })
      if (found.error === undefined) return
      throw new SubpageError('QEMU_FAILED', `QEMU's ${execute} failed: ${found.error}`)
    }
    await delay(pollMs)
  }
}
