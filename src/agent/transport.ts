/**
 * The one place that makes connections between agents. Between hosts: TLS 1.3, both sides prove who they are by certificates.
 * Within a machine: a unix socket of mode 0600 in a directory of mode 0700, so that only the agent's user (and root) reaches
 * it. There is no TCP without TLS, not even on loopback, which admits every local user. Who connects to us comes in by door.ts.
 */
import { once } from 'node:events'
import { chmodSync, rmSync, statSync } from 'node:fs'
import { createConnection, createServer, isIP, type ListenOptions, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type ConnectionOptions, connect as tlsConnect } from 'node:tls'
import { errorCode, SubpageError } from '../errors.ts'
import { limits as table } from '../limits.ts'
import { readRefusal } from '../replication/primary-session.ts'
import { type Address, formatAddress, keepAlive, pairSocket, parseAddress } from './address.ts'
import type { Credentials } from './credentials.ts'
import { Door, type DoorHandlers, type ListenHandlers, type TransportLimits, tlsOptions } from './door.ts'
import { encodePreamble, proceed, takeBytes } from './preamble.ts'
import { handshakeFailure } from './tls-failure.ts'

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
  /** For connections that another process has accepted. */
  door(handlers: DoorHandlers): Door
  /**
   * @param guest the id of the guest that it is about
   * @throws SubpageError PEER_UNREACHABLE, AUTH_REFUSED, TLS_REQUIRED, and what it is refused with
   */
  connect(to: string, guest: string): Promise<Duplex>
}

const defaultLimits: TransportLimits = {
  handshakeMs: 5_000,
  strangersMax: table.strangers.value,
  strangersMaxPerAddress: table.strangersPerAddress.value,
}

export function createTransport(
  credentials?: () => Credentials,
  limits: TransportLimits = defaultLimits,
): Transport {
  return {
    credentials,
    listen: (addresses, handlers) => listen(addresses, handlers, credentials, limits),
    door: (handlers) => new Door(handlers, credentials, limits),
    connect: (to, guest) => connect(to, guest, credentials, limits.handshakeMs),
  }
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
        (socket) => void door.admit(socket, local, (id) => handlers.route(id)),
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

// ---- connecting

async function connect(
  to: string,
  guest: string,
  credentials: (() => Credentials) | undefined,
  limitMs: number,
): Promise<Duplex> {
  const address = parseAddress(to)
  const local = 'path' in address
  if (!local && !credentials) throw needsTls(to)
  const socket = createConnection(
    local ? { path: socketAt(address.path) } : { ...address, noDelay: true, ...keepAlive },
  )
  let stream: Socket = socket
  let late = false
  const timer = setTimeout(() => {
    late = true
    stream.destroy(new Error(`no answer within ${limitMs / 1000} s`))
  }, limitMs)
  try {
    await once(socket, 'connect')
    await introduce(socket, guest)
    if (local) return socket
    const { host } = address
    const options: ConnectionOptions = {
      ...tlsOptions(credentials!()),
      ...{ socket, host, rejectUnauthorized: true },
      // An address is no server name (RFC 6066, 3); it is compared with the certificate all the same.
      servername: isIP(host) ? '' : host,
    }
    stream = tlsConnect(options)
    await once(stream, 'secureConnect')
    return stream
  } catch (cause) {
    socket.on('error', () => undefined).destroy()
    stream.on('error', () => undefined).destroy()
    if (cause instanceof SubpageError) throw cause
    throw connectFailure(to, late ? new Error(`no answer within ${limitMs / 1000} s`) : cause)
  } finally {
    clearTimeout(timer)
  }
}

/** Says which guest it is about, and waits until somebody listens who knows. @throws SubpageError, with what it is refused */
async function introduce(socket: Socket, guest: string): Promise<void> {
  // Errors show where the stream is read.
  const ignore = () => undefined
  socket.on('error', ignore)
  socket.write(encodePreamble(guest))
  const answer = await takeBytes(socket, 1)
  socket.off('error', ignore)
  if (answer?.[0] === proceed) return
  if (!answer) throw socket.errored ?? new Error('it closed the connection without an answer')
  socket.unshift(answer)
  throw await readRefusal(socket)
}

/** Of a state directory the socket in it. */
function socketAt(path: string): string {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ? pairSocket(path) : path
}

function connectFailure(to: string, cause: unknown): SubpageError {
  const tls = handshakeFailure(cause)
  if (tls) return new SubpageError(tls.code, `the host at ${to} is not trusted: ${tls.message}`, { cause })
  const why = cause instanceof Error ? cause.message || errorCode(cause) : String(cause)
  return new SubpageError('PEER_UNREACHABLE', `no agent answers at ${to}: ${why}`, { cause })
}
