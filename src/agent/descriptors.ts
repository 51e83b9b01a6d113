/** Hands a connection from one process to another: the agent's, which accepted it, and the one that it is for. */
import { once } from 'node:events'
import { createConnection, Socket } from 'node:net'
import { SubpageError } from '../errors.ts'
import { addon } from '../memory/native.ts'
import { descriptorOf, stopReading } from '../socket-handle.ts'

const marks = { remote: 0, local: 1 }
const waitMs = 1
const waitsMax = 2_000

/**
 * The process that listens on `door` has the connection then, and ours is closed.
 * @param local it came through the socket of this machine
 * @throws SubpageError PEER_UNREACHABLE when nobody listens there
 */
export async function handOver(socket: Socket, door: string, local: boolean): Promise<void> {
  stopReading(socket)
  const to = createConnection(door)
  try {
    await once(to, 'connect')
    addon.sendDescriptor(descriptorOf(to), descriptorOf(socket), local ? marks.local : marks.remote)
    // It closes when it has it.
    to.resume()
    await once(to, 'close')
  } catch (cause) {
    throw new SubpageError('PEER_UNREACHABLE', 'the supervisor of the guest does not answer', { cause })
  } finally {
    to.destroy()
    socket.destroy()
  }
}

/** The connection that comes over another one, of the agent's, which has not been read. */
export function receiveSocket(agent: Socket, received: (socket: Socket, local: boolean) => void): void {
  agent.on('error', () => undefined)
  const results = new Float64Array(1)
  let waits = 0
  const look = () => {
    const fd = agent.destroyed ? -2 : addon.receiveDescriptor(descriptorOf(agent), results)
    if (fd === -1 && waits++ < waitsMax) {
      setTimeout(look, waitMs)
      return
    }
    agent.destroy()
    if (fd >= 0) received(new Socket({ fd, readable: true, writable: true }), results[0] === marks.local)
  }
  look()
}
