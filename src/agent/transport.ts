/**
 * The one place that makes connections between agents. Between hosts: TLS 1.3, both sides prove who they are by certificates.
 * Within a machine: a unix socket of mode 0600 in a directory of mode 0700, so that only the agent's user (and root) reaches
 * it. There is no TCP without TLS, not even on loopback, which admits every local user.
 *
 * Until a peer has proved itself and said hello it holds one of few places, and for a few seconds only. Whoever is not
 * let in is told why by a `refuse` frame, where it can read one, and the listener hears of it.
 */
import { constants } from 'node:crypto'
import { chmodSync, rmSync, statSync } from 'node:fs'
import { createConnection, createServer, isIP, type ListenOptions, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import {
  type ConnectionOptions,
  createServer as createTlsServer,
  type SecureVersion,
  type TLSSocket,
  connect as tlsConnect,
} from 'node:tls'
import { asSubpageError, errorCode, invariant, SubpageError } from '../errors.ts'
import { Connection } from '../replication/connection.ts'
import { type Address, formatAddress, keepAlive, pairSocket, parseAddress } from './address.ts'
import { type Credentials, nameIn } from './credentials.ts'
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

export interface ListenHandlers {
  connection(incoming: Incoming): void
  refused(from: string, error: SubpageError): void
}

export interface Listening {
  /** In the order in which they were given; with the port that was chosen in place of 0. */
  addresses: Address[]
  close(): void
}

export interface Transport {
  /** Undefined without certificates. */
  readonly credentials: (() => Credentials) | undefined
  /**
   * On all of these addresses; a socket's file must be ours alone, and is made anew.
   * @throws SubpageError ADDRESS_IN_USE, BAD_ARGUMENT, TLS_REQUIRED
   */
  listen(addresses: Address[], handlers: ListenHandlers): Promise<Listening>
  /** @throws SubpageError PEER_UNREACHABLE, AUTH_REFUSED, TLS_REQUIRED */
  connect(to: string): Promise<Duplex>
}

export interface TransportLimits {
  /** From the first packet to a valid hello, and for a connection of ours to stand. */
  handshakeMs: number
  /** Peers at once that have not said hello yet: in all, and from one address. */
  strangersMax: number
  strangersMaxPerAddress: number
}

const defaultLimits: TransportLimits = { handshakeMs: 5_000, strangersMax: 64, strangersMaxPerAddress: 16 }

export function createTransport(
  credentials?: () => Credentials,
  limits: TransportLimits = defaultLimits,
): Transport {
  return {
    credentials,
    listen: (addresses, handlers) => listen(addresses, handlers, credentials, limits),
    connect: (to) => connect(to, credentials, limits.handshakeMs),
  }
}

/** Without session tickets: a resumed session would come without its certificate. */
function tlsOptions({ ca, cert, key }: Credentials) {
  const version: SecureVersion = 'TLSv1.3'
  const secureOptions = constants.SSL_OP_NO_TICKET
  return { ca, cert, key, minVersion: version, maxVersion: version, secureOptions }
}

function needsTls(address: string): SubpageError {
  return new SubpageError(
    'TLS_REQUIRED',
    `${address}: agents speak TCP with certificates only. Make them with subpage cert, then start both agents with --tls-ca, --tls-cert and --tls-key; two agents of one machine need none, and name each other's state directory in place of an address`,
  )
}

// ---- listening

async function listen(
  addresses: Address[],
  handlers: ListenHandlers,
  credentials: (() => Credentials) | undefined,
  limits: TransportLimits,
): Promise<Listening> {
  for (const address of addresses)
    if ('port' in address && !credentials) throw needsTls(formatAddress(address))
  const door = new Door(handlers, credentials, limits)
  const servers: Server[] = []
  const close = () => {
    for (const server of servers) server.close()
  }
  try {
    const bound: Address[] = []
    for (const address of addresses) {
      const local = 'path' in address
      const server = createServer(
        local ? {} : { noDelay: true, ...keepAlive },
        (socket) => void door.admit(socket, local),
      )
      bound.push(await bind(server, address))
      servers.push(server)
    }
    return { addresses: bound, close }
  } catch (error) {
    close()
    throw error
  }
}

async function bind(server: Server, address: Address): Promise<Address> {
  if ('path' in address) {
    // Of an agent that was killed. Whoever calls us holds the lock of the state directory.
    rmSync(address.path, { force: true })
    await listening(server, address, address)
    // Before that the directory, which is private, keeps others out.
    chmodSync(address.path, 0o600)
    return address
  }
  await listening(server, address, address)
  const bound = server.address()
  return { host: address.host, port: bound !== null && typeof bound === 'object' ? bound.port : address.port }
}

function listening(server: Server, options: ListenOptions, address: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) =>
      reject(
        errorCode(error) === 'EADDRINUSE'
          ? new SubpageError('ADDRESS_IN_USE', `${formatAddress(address)} is taken by another program`)
          : new SubpageError('BAD_ARGUMENT', `cannot listen on ${formatAddress(address)}: ${error.message}`),
      ),
    )
    server.listen(options, resolve)
  })
}

/** Lets peers in that prove who they are. */
class Door {
  readonly #handlers: ListenHandlers
  readonly #credentials: (() => Credentials) | undefined
  readonly #limits: TransportLimits
  /** Strangers by address. */
  readonly #strangers = new Map<string, number>()
  readonly #limiter = new RefusalLimiter()

  constructor(
    handlers: ListenHandlers,
    credentials: (() => Credentials) | undefined,
    limits: TransportLimits,
  ) {
    this.#handlers = handlers
    this.#credentials = credentials
    this.#limits = limits
  }

  /** @param local it came through the socket of this machine: its mode has proved enough */
  async admit(socket: Socket, local: boolean): Promise<void> {
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
      const first = await firstByte(socket)
      if (first === undefined) return
      let name: string | undefined
      if (!local) {
        invariant(this.#credentials, 'who comes by TCP proves who they are')
        if (first !== tlsRecord)
          throw new SubpageError(
            'AUTH_REFUSED',
            'this host lets nobody in without TLS, and it does not speak it',
          )
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
      } else if (first === tlsRecord)
        throw new SubpageError('AUTH_REFUSED', 'it speaks TLS, which the socket of a machine does not')
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

/** First byte of a TLS record that carries a handshake (RFC 8446, 5.1). */
const tlsRecord = 0x16

/** Looks at what comes first and leaves it in the stream. Undefined when the stream ends without a byte. */
function firstByte(stream: Duplex): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const settle = (end: () => void) => {
      stream.off('data', onData).off('end', onEnd).off('close', onClose)
      end()
    }
    const onData = (chunk: Buffer) => {
      stream.pause()
      settle(() => {
        stream.unshift(chunk)
        resolve(chunk[0])
      })
    }
    const onEnd = () => settle(() => resolve(undefined))
    const onClose = () =>
      settle(() => (stream.errored instanceof SubpageError ? reject(stream.errored) : resolve(undefined)))
    stream.on('data', onData).on('end', onEnd).on('close', onClose)
  })
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

// ---- connecting

async function connect(
  to: string,
  credentials: (() => Credentials) | undefined,
  limitMs: number,
): Promise<Duplex> {
  const address = parseAddress(to)
  if ('path' in address) {
    const socket = createConnection({ path: socketAt(address.path) })
    return await established(socket, 'connect', to, limitMs)
  }
  if (!credentials) throw needsTls(to)
  const { host, port } = address
  const options: ConnectionOptions = {
    ...tlsOptions(credentials()),
    ...{ host, port, noDelay: true, ...keepAlive, rejectUnauthorized: true },
    // An address is no server name (RFC 6066, 3); it is compared with the certificate all the same.
    servername: isIP(host) ? '' : host,
  }
  return await established(tlsConnect(options), 'secureConnect', to, limitMs)
}

/** Of a state directory the socket in it. */
function socketAt(path: string): string {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ? pairSocket(path) : path
}

function established<T extends Socket>(socket: T, event: string, to: string, limitMs: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const fail = (why: unknown) => {
      clearTimeout(timer)
      socket.destroy()
      reject(connectFailure(to, why))
    }
    const timer = setTimeout(() => fail(new Error(`no answer within ${limitMs / 1000} s`)), limitMs)
    socket.once('error', fail)
    socket.once(event, () => {
      clearTimeout(timer)
      socket.off('error', fail)
      resolve(socket)
    })
  })
}

function connectFailure(to: string, cause: unknown): SubpageError {
  const tls = handshakeFailure(cause)
  if (tls) return new SubpageError(tls.code, `the host at ${to} is not trusted: ${tls.message}`, { cause })
  const why = cause instanceof Error ? cause.message || errorCode(cause) : String(cause)
  return new SubpageError('PEER_UNREACHABLE', `no agent answers at ${to}: ${why}`, { cause })
}
