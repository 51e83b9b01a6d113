/** Hands a connection from one process to another: the agent's, which accepted it, and the one that it is for. */
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { createConnection, Socket } from 'node:net'
import { addon } from '../memory/native.ts'
import { descriptorOf, readAgain, stopReading } from '../socket-handle.ts'

const marks = { remote: 0, local: 1 }
/** What is said of a connection that was taken. */
const taken = 1
const waitMs = 1
const waitsMax = 2_000

/**
 * The process that listens on `door` has the connection when it says so, and ours is closed. One that is just ending does not
 * take it: then it is still ours, unread.
 * @param local it came through the socket of this machine
 * @returns whether it was taken; false, too, when nobody listens, or the connection closes meanwhile
 */
export async function handOver(socket: Socket, door: string, local: boolean): Promise<boolean> {
  stopReading(socket)
  const to = createConnection(door)
  const giveUp = () => to.destroy()
  socket.once('close', giveUp)
  let took = false
  try {
    await once(to, 'connect')
    addon.sendDescriptor(descriptorOf(to), descriptorOf(socket), local ? marks.local : marks.remote)
    to.on('data', () => {
      took = true
    })
    await once(to, 'close')
  } catch {
    // Nobody listens.
  }
  socket.off('close', giveUp)
  to.destroy()
  if (took) socket.destroy()
  else if (!socket.destroyed) readAgain(socket)
  return took
}

/**
 * The connection that comes over another one, of the agent's, which has not been read.
 * @param open whether one is taken, at the moment when it has come
 */
export function receiveSocket(
  agent: Socket,
  open: () => boolean,
  received: (socket: Socket, local: boolean) => void,
): void {
  agent.on('error', () => undefined)
  const results = new Float64Array(1)
  let waits = 0
  const look = () => {
    const fd = agent.destroyed ? -2 : addon.receiveDescriptor(descriptorOf(agent), results)
    if (fd === -1 && waits++ < waitsMax) {
      setTimeout(look, waitMs)
      return
    }
    if (fd < 0 || !open()) {
      if (fd >= 0) closeSync(fd)
      agent.destroy()
      return
    }
    agent.end(Uint8Array.of(taken), () => agent.destroy())
    received(new Socket({ fd, readable: true, writable: true }), results[0] === marks.local)
  }
  look()
}
