/**
 * Tells the service manager that started this agent how far it is: sd_notify(3), a datagram to the socket that NOTIFY_SOCKET
 * names. Without that variable nobody asks. What we start does not get the variable: it is not for them to speak for us.
 */
import { takeMessage } from '../environment.ts'
import { errorCode } from '../errors.ts'
import { addon } from '../memory/native.ts'

export type ServiceState = 'READY=1' | 'STOPPING=1' | 'WATCHDOG=1'

const watchdogUs = Number(takeMessage('WATCHDOG_USEC') ?? 0)
const watchdogProcess = takeMessage('WATCHDOG_PID')
const socket = takeMessage('NOTIFY_SOCKET') || undefined

/** @returns what has kept it from being told, for people */
export function tellServiceManager(state: ServiceState): string | undefined {
  if (socket === undefined) return undefined
  try {
    addon.sendDatagram(socket, state)
    return undefined
  } catch (error) {
    return `the service manager cannot be told ${state} through ${socket}: ${errorCode(error) ?? error}`
  }
}

/**
 * Sends a sign of life from the event loop, twice in the time after which the manager takes this process for hung and starts another one
 * (WatchdogSec=). Does nothing where the manager has not asked for it.
 */
export function keepServiceManagerInformed(): void {
  const isForUs = watchdogProcess === undefined || watchdogProcess === String(process.pid)
  if (socket === undefined || !isForUs || !(watchdogUs > 0)) return
  setInterval(() => tellServiceManager('WATCHDOG=1'), watchdogUs / 2000).unref()
}
