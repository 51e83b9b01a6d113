/** What Node keeps to itself of a socket. */
import type { Socket } from 'node:net'

interface Handle {
  fd: number
  reading: boolean
  readStop(): void
  readStart(): void
}

const handleOf = (socket: Socket) => (socket as unknown as { _handle: Handle })._handle

export const descriptorOf = (socket: Socket): number => handleOf(socket).fd

/** From now on, or until readAgain, what comes stays in the kernel; before, all that has come must have been read. */
export function stopReading(socket: Socket): void {
  const handle = handleOf(socket)
  handle.readStop()
  handle.reading = false
}

export function readAgain(socket: Socket): void {
  const handle = handleOf(socket)
  handle.reading = true
  handle.readStart()
}
