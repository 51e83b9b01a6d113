/** Sockets of this machine, for peers within one process. */
import { once } from 'node:events'
import { createConnection, createServer, type Server, type Socket } from 'node:net'

/** Two ends of one TCP connection on this machine. */
export async function socketPair(): Promise<[Socket, Socket]> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const left = createConnection(portOf(server), '127.0.0.1')
  const [[right]] = (await Promise.all([once(server, 'connection'), once(left, 'connect')])) as [[Socket], []]
  server.close()
  // A test that resets a connection looks at the Connection, not at the socket.
  for (const socket of [left, right]) socket.on('error', () => undefined)
  return [left, right]
}

export function portOf(server: Server): number {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the server does not listen')
  return address.port
}

export async function dial(port: number): Promise<Socket> {
  const socket = createConnection({ port, host: '127.0.0.1', noDelay: true })
  await once(socket, 'connect')
  return socket
}
