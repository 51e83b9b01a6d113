/** Connecting to the control socket of a QEMU that another process has started, however long it takes to answer. */
import { setTimeout as delay } from 'node:timers/promises'
import { errorCode } from '../errors.ts'
import { isGone, type ProcessIdentity } from './process.ts'
import { Qmp, type QmpSockets } from './qmp.ts'

const connectAgainMs = 500

/** Undefined when its process has ended before it answered. */
export async function untilConnected(files: QmpSockets, process: ProcessIdentity): Promise<Qmp | undefined> {
  for (;;)
    try {
      return await Qmp.connect(files, Number.POSITIVE_INFINITY)
    } catch (error) {
      if (isGone(process)) return undefined
      // A QEMU that hangs has a short queue, and agents that were killed are in it before us.
      if (errorCode(error) !== 'EAGAIN') throw error
      await delay(connectAgainMs)
    }
}
