/** Servers in a guest whose clients are outside, as those of the DSN'09 paper are. */
import { connect, type Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import type { GuestWorkload } from '../../guest-workload.ts'
import { guestAddress } from './network.ts'

/** In the guest, of each: one network does for all. */
export const servedPort = 7000
const keys = 20_000
const files = 200

/** They ask until they are closed. */
export interface Clients {
  /** So many requests have been answered. */
  readonly answered: number
  close(): void
}

export interface ServedWorkload extends GuestWorkload {
  /** @param port of this host */
  clients(port: number): Clients
}

const addressed = `ip addr add ${guestAddress}/24 dev eth0 2>/dev/null`
const common = { kind: 'server with clients outside', ready: '^study: at work', settleMs: 3000 }

export const servedWorkloads: readonly ServedWorkload[] = [
  {
    ...common,
    name: 'redis-served',
    quick: true,
    about:
      'redis sets 20,000 keys of 100 bytes at random, for four clients outside with 16 requests under way each',
    needs: ['redis-server', 'nc'],
    run: `${addressed}; redis-server --bind ${guestAddress} 127.0.0.1 --port ${servedPort} --protected-mode no --save "" --appendonly no --dir /tmp --loglevel warning >/dev/null & until echo PING | timeout 2 nc 127.0.0.1 ${servedPort} | grep -q PONG; do sleep 0.2; done; echo "study: at work"; wait`,
    clients: (port) => redisClients(port, 4, 16),
  },
  {
    ...common,
    name: 'web-served',
    about: 'a web server gives 200 files of 8 KiB, a connection each, to four clients outside',
    needs: ['httpd'],
    run: `${addressed}; mkdir -p /tmp/www; for n in $(seq ${files}); do head -c 8192 /dev/urandom >/tmp/www/$((n - 1)); done; httpd -f -p ${servedPort} -h /tmp/www & echo "study: at work"; wait`,
    clients: (port) => webClients(port, 4),
  },
]

const random = (below: number): number => Math.floor(Math.random() * below)

function redisClients(port: number, connections: number, window: number): Clients {
  let answered = 0
  const value = () => String(random(1e9)).padEnd(100)
  const request = () => {
    const key = `key:${random(keys)}`
    return `*3\r\n$3\r\nSET\r\n$${key.length}\r\n${key}\r\n$100\r\n${value()}\r\n`
  }
  const sockets = Array.from({ length: connections }, () => {
    const socket = opened(port)
    for (let n = 0; n < window; n++) socket.write(request())
    return socket.on('data', (piece: Buffer) => {
      for (const byte of piece) {
        if (byte !== 10) continue
        answered++
        socket.write(request())
      }
    })
  })
  return {
    get answered() {
      return answered
    },
    close() {
      for (const socket of sockets) socket.destroy()
    },
  }
}

function webClients(port: number, clients: number): Clients {
  let [answered, closed] = [0, false]
  const sockets = new Set<Socket>()
  const ask = async () => {
    while (!closed) {
      const socket = opened(port)
      sockets.add(socket)
      let said = 0
      socket.on('data', (piece: Buffer) => {
        said += piece.length
      })
      socket.write(`GET /${random(files)} HTTP/1.0\r\n\r\n`)
      await new Promise((resolve) => socket.once('close', resolve))
      sockets.delete(socket)
      if (said > 8192) answered++
      // What is refused is asked for again, and others have their turn.
      await turn()
    }
  }
  for (let n = 0; n < clients; n++) void ask()
  return {
    get answered() {
      return answered
    },
    close() {
      closed = true
      for (const socket of sockets) socket.destroy()
    },
  }
}

function opened(port: number): Socket {
  const socket = connect(port, '127.0.0.1').setNoDelay(true)
  // Whoever looks at the count sees that nothing is answered any more.
  return socket.on('error', () => undefined)
}
