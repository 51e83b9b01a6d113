/** A TCP connection to a port of this machine that breaks after a number of bytes from the caller to the port. */
import { once } from 'node:events'
import { createConnection, createServer, type Socket } from 'node:net'

/** @param bytes passed on before both ends are reset; Infinity: never */
export async function dialCutting(port: number, bytes: number): Promise<Socket> {
  const proxy = createServer((inner) => {
    const outer = createConnection({ port, host: '127.0.0.1', noDelay: true })
    let left = bytes
    const cut = () => {
      inner.destroy()
      outer.destroy()
    }
    for (const socket of [inner, outer]) socket.on('error', cut).on('close', cut)
    outer.on('data', (chunk) => inner.write(chunk))
    inner.on('data', (chunk: Buffer) => {
      const passed = chunk.subarray(0, left)
      left -= passed.length
      if (left > 0) outer.write(passed)
      // What was passed on arrives; what comes after does not.
      else outer.end(passed, () => inner.destroy())
    })
  }).listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  const address = proxy.address()
  if (address === null || typeof address === 'string') throw new Error('the proxy does not listen')
  const socket = createConnection({ port: address.port, host: '127.0.0.1', noDelay: true })
  await once(socket, 'connect')
  proxy.close()
  return socket
}
