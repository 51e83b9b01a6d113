/**
 * Lets those in who connect to an agent. Until a peer has proved itself and said hello it holds one of few places, and for a
 * few seconds only. Whoever is not let in is told why by a `refuse` frame, where it can read one, and the listener hears of it.
 */
import { constants } from 'node:crypto'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { createServer as createTlsServer, type SecureVersion, type TLSSocket } from 'node:tls'
import { asSubpageError, invariant, SubpageError } from '../errors.ts'
import { Connection } from '../replication/connection.ts'
import { formatAddress } from './address.ts'
import { type Credentials, nameIn } from './credentials.ts'
import { decodePreamble, preambleBytes, proceed, takeBytes } from './preamble.ts'
import { RefusalLimiter } from './refusal-limiter.ts'
import { certificateFailure, handshakeFailure } from './tls-failure.ts'

/** Who is at the other end: the name in its certificate, or none on a connection within this machine. */
export interface Peer {
  name: string | undefined
  address: string
}

export interface Incoming {
  stream: Duplex
  peer: Peer
  /** To be called when a valid hello has arrived; without it the connection is cut after a few seconds. */
  accept(): void
}

export interface DoorHandlers {
  connection(incoming: Incoming): void
  refused(from: string, error: SubpageError): void
}

/** Gives a connection to whom it is for. @returns whether it was taken; otherwise it is asked anew whom it is for */
export type HandOver = (socket: Socket, local: boolean) => Promise<boolean>

export interface ListenHandlers extends DoorHandlers {
  /** Whom a connection about this guest is for; undefined: it stays here. */
  route(id: string): HandOver | undefined
}

export interface TransportLimits {
  /** From the first packet to a valid hello, and for a connection of ours to stand. */
  handshakeMs: number
  /** Peers at once that have not said hello yet: in all, and from one address. */
  strangersMax: number
  strangersMaxPerAddress: number
}

/** Lets peers in that prove who they are. */
export class Door {
  readonly #handlers: DoorHandlers
  readonly #credentials: (() => Credentials) | undefined
  readonly #limits: TransportLimits
  /** Strangers by address. */
  readonly #strangers = new Map<string, number>()
  readonly #limiter = new RefusalLimiter()

  constructor(handlers: DoorHandlers, credentials: (() => Credentials) | undefined, limits: TransportLimits) {
    this.#handlers = handlers
    this.#credentials = credentials
    this.#limits = limits
  }

  /**
   * A connection that has just come.
   * @param local it came through the socket of this machine: its mode has proved enough
   * @param route whom it is for, once it has said that
   */
  async admit(socket: Socket, local: boolean, route: ListenHandlers['route']): Promise<void> {
    await this.#welcome(socket, local, async (leave) => {
      const preamble = await takeBytes(socket, preambleBytes)
      // It may be a look at the port.
      if (!preamble) return false
      const guest = decodePreamble(preamble)
      for (let handOver = route(guest); handOver; handOver = route(guest))
        if (await handOver(socket, local)) {
          leave()
          return false
        } else if (socket.destroyed) return false
      return true
    })
  }

  /** A connection whose preamble another process has read. */
  async admitted(socket: Socket, local: boolean): Promise<void> {
    await this.#welcome(socket, local, async () => true)
  }

  async #welcome(
    socket: Socket,
    local: boolean,
    introduce: (leave: () => void) => Promise<boolean>,
  ): Promise<void> {
    const ip = local ? 'this machine' : (socket.remoteAddress ?? 'unknown')
    const from = local ? ip : formatAddress({ host: ip, port: socket.remotePort ?? 0 })
    // Errors show where the stream is read.
    socket.on('error', () => undefined)
    if (!this.#takePlace(ip)) {
      this.#refused(from, new SubpageError('AUTH_REFUSED', 'too many connections that have not said hello'))
      socket.destroy()
      return
    }
    let stream: Duplex = socket
    const late = new SubpageError(
      'AUTH_REFUSED',
      `no hello within ${this.#limits.handshakeMs / 1000} s; the connection is closed`,
    )
    const timer = setTimeout(() => stream.destroy(late), this.#limits.handshakeMs)
    let placed = true
    const leave = () => {
      clearTimeout(timer)
      if (placed) this.#leavePlace(ip)
      placed = false
    }
    socket.once('close', leave)
    try {
      if (!(await introduce(leave))) return
      socket.write(Uint8Array.of(proceed))
      let name: string | undefined
      if (!local) {
        invariant(this.#credentials, 'who comes by TCP proves who they are')
        if ((await firstByte(socket)) === undefined) return
        const secured = await secure(socket, this.#credentials())
        stream = secured
        secured.on('error', () => undefined)
        name = identify(secured)
        // A client that does not like our certificate finishes the handshake and hangs up.
        if ((await firstByte(secured)) === undefined)
          throw new SubpageError(
            'AUTH_REFUSED',
            `${name} hung up; it may not accept the certificate of this host`,
          )
      } else if ((await firstByte(socket)) === undefined) return
      this.#handlers.connection({ stream, peer: { name, address: from }, accept: leave })
    } catch (thrown) {
      const error = stream.errored === late ? late : asSubpageError(thrown)
      this.#refused(from, error)
      if (!stream.destroyed) await new Connection(stream).refuse(error)
      socket.destroy()
    }
  }

  #refused(from: string, error: SubpageError): void {
    const suffix = this.#limiter.next()
    if (suffix !== undefined) this.#handlers.refused(from, suffix === '' ? error : withSuffix(error, suffix))
  }

  #takePlace(ip: string): boolean {
    const here = this.#strangers.get(ip) ?? 0
    const all = [...this.#strangers.values()].reduce((sum, count) => sum + count, 0)
    if (here >= this.#limits.strangersMaxPerAddress || all >= this.#limits.strangersMax) return false
    this.#strangers.set(ip, here + 1)
    return true
  }

  #leavePlace(ip: string): void {
    const left = (this.#strangers.get(ip) ?? 0) - 1
    if (left > 0) this.#strangers.set(ip, left)
    else this.#strangers.delete(ip)
  }
}

const withSuffix = (error: SubpageError, suffix: string) =>
  new SubpageError(error.code, `${error.message} ${suffix}`, { cause: error })

/** Looks at what comes first and leaves it in the stream. Undefined when the stream ends without a byte. */
async function firstByte(stream: Duplex): Promise<number | undefined> {
  const first = await takeBytes(stream, 1)
  if (first) stream.unshift(first)
  return first?.[0]
}

/** The server's half of the handshake. Every certificate passes it: `identify` judges, so that the peer can be told. */
function secure(socket: Socket, credentials: Credentials): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const server = createTlsServer({
      ...tlsOptions(credentials),
      requestCert: true,
      rejectUnauthorized: false,
    })
    server.once('secureConnection', resolve)
    server.once('tlsClientError', (cause) =>
      reject(
        socket.errored instanceof SubpageError
          ? socket.errored
          : (handshakeFailure(cause) ??
              new SubpageError('AUTH_REFUSED', `the TLS handshake broke off: ${cause.message}`, { cause })),
      ),
    )
    server.emit('connection', socket)
  })
}

/** @throws SubpageError AUTH_REFUSED unless the peer has shown a certificate of our CA in this very handshake */
function identify(socket: TLSSocket): string {
  const certificate = socket.getPeerX509Certificate()
  if (certificate === undefined)
    throw new SubpageError('AUTH_REFUSED', 'it shows no certificate; this host lets nobody in without')
  // Node gives the code of OpenSSL here, whatever its types say.
  if (!socket.authorized) throw certificateFailure(String(socket.authorizationError))
  if (socket.isSessionReused() || socket.getProtocol() !== 'TLSv1.3')
    throw new SubpageError('AUTH_REFUSED', 'it did not prove its certificate in this handshake')
  const name = nameIn(certificate.toLegacyObject())
  if (name === undefined) throw new SubpageError('AUTH_REFUSED', 'its certificate names no host')
  return name
}

/** Without session tickets: a resumed session would come without its certificate. */
export function tlsOptions({ ca, cert, key }: Credentials) {
  const version: SecureVersion = 'TLSv1.3'
  const secureOptions = constants.SSL_OP_NO_TICKET
  return { ca, cert, key, minVersion: version, maxVersion: version, secureOptions }
}
