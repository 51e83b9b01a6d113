/**
 * Ends a QEMU that no agent holds: a standby or a half-finished start of an agent that was killed, a guest whose record
 * is damaged. By its recorded identity, or, without one, through its control socket.
 */
import { SubpageError } from '../errors.ts'
import { type GuestFiles, type GuestRecord, removeFiles } from './guest-files.ts'
import { isRunning, untilGone } from './process.ts'
import { Qmp } from './qmp.ts'

/** Removes its files too. @throws SubpageError QEMU_FAILED when something holds its control socket and gives no answer */
export async function endLeftover(files: GuestFiles, record: GuestRecord | undefined): Promise<void> {
  if (!record) await quit(files)
  else if (isRunning(record.process)) {
    process.kill(record.process.pid, 'SIGKILL')
    await untilGone(record.process)
  }
  removeFiles(files)
}

async function quit(files: GuestFiles): Promise<void> {
  let qmp: Qmp
  try {
    qmp = await Qmp.connect(files.qmp)
  } catch (error) {
    if (error instanceof SubpageError && error.code === 'QEMU_FAILED') throw error
    // Nobody listens.
    return
  }
  const closed = new Promise<void>((resolve) => qmp.once('close', resolve))
  // It may end before it answers.
  qmp.run('quit').catch(() => undefined)
  await closed
}
