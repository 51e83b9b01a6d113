/**
 * Ends a QEMU that no agent holds: a standby or a half-finished start of an agent that was killed, a guest whose record
 * is damaged. By its recorded identity, or, without one that can be seen from here, through its control socket.
 */
import { once } from 'node:events'
import { createConnection } from 'node:net'
import { errorCode, SubpageError } from '../errors.ts'
import { type GuestFiles, removeFiles } from './guest-files.ts'
import type { GuestRecord } from './guest-record.ts'
import { fateOf, killProcess, untilGone } from './process.ts'
import { Qmp } from './qmp.ts'

/** Removes its files too. @throws SubpageError QEMU_FAILED when something holds its control socket and gives no answer */
export async function endLeftover(files: GuestFiles, record: GuestRecord | undefined): Promise<void> {
  const fate = record ? fateOf(record.process) : 'unseen'
  if (record && fate === 'runs') {
    killProcess(record.process)
    await untilGone(record.process)
  } else if (fate === 'unseen') await quit(files)
  removeFiles(files)
}

/** Whether a process listens on the guest's control socket, wherever that process runs. */
export async function isServed({ qmp }: GuestFiles): Promise<boolean> {
  const socket = createConnection(qmp)
  try {
    await once(socket, 'connect')
    return true
  } catch (error) {
    return !/^(ENOENT|ECONNREFUSED)$/.test(errorCode(error) ?? '')
  } finally {
    socket.destroy()
  }
}

async function quit(files: GuestFiles): Promise<void> {
  let qmp: Qmp
  try {
    qmp = await Qmp.connect(files.qmp)
  } catch (error) {
    // Nobody listens, or it has just ended.
    if (/^(ENOENT|ECONNREFUSED|ECONNRESET|EPIPE)$/.test(errorCode(error) ?? '')) return
    if (error instanceof SubpageError && error.code === 'GUEST_DIED') return
    throw error
  }
  const closed = new Promise<void>((resolve) => qmp.once('close', resolve))
  // It may end before it answers.
  qmp.run('quit').catch(() => undefined)
  await closed
}
