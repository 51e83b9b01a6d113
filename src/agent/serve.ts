/** Runs an agent as a process: one for each state directory, its API on a unix socket, until a signal ends it. */
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { hostname } from 'node:os'
import { resolve } from 'node:path'
import { setting } from '../environment.ts'
import { SubpageError } from '../errors.ts'
import { readDiskDirectories } from '../qemu/disk-places.ts'
import { guestFiles } from '../qemu/guest-files.ts'
import { readImageDirectories } from '../qemu/image-files.ts'
import { assertOwnProc } from '../qemu/process.ts'
import { readFaults } from '../replication/fault.ts'
import { formatAddress, parseTcpAddress, type TcpAddress } from './address.ts'
import { Agent } from './agent.ts'
import { buildApi } from './api.ts'
import { assertLoopback, type ListeningApi, listenApi, listenLoopback } from './api-listener.ts'
import { readToken } from './api-token.ts'
import { type ArbiterFlags, chooseArbiter } from './arbiter-choice.ts'
import { type Credentials, type TlsFiles, watchCredentials } from './credentials.ts'
import { addInvitations } from './dashboard.ts'
import { type Log, type LogLevel, logEvent, logRequests, now } from './log.ts'
import { addMetrics } from './metrics-route.ts'
import { type NotifyOptions, notify, openChannels } from './notifications.ts'
import { makePrivateDirectory } from './private-directory.ts'
import { keepServiceManagerInformed, tellServiceManager } from './service-manager.ts'
import { apiSocket, defaultStateDirectory } from './state-directory.ts'
import { lockState } from './state-lock.ts'
import type { SwapPlace } from './supervisor/host-density.ts'
import { createTransport } from './transport.ts'

export interface ServeOptions {
  stateDirectory: string
  /** For other hosts, with certificates; without it only agents of this machine reach this one. */
  listen?: string
  hostName?: string
  /** Where other hosts reach this one, when that is not where it listens. */
  advertise?: string
  arbiter?: ArbiterFlags
  /** Without it the agent speaks to its own machine only. */
  tls?: TlsFiles
  /** The API over TCP: where, and the file with its token. */
  api?: { listen: string; tokenFile: string; readTokenFile?: string }
  /** Further directories that guests may read from, separated by colons. */
  images?: string
  /** Directories in which other hosts may name files and devices for copies of disks, separated by colons. */
  diskDirectories?: string
  /** For cold pages of dense guests. */
  swap?: SwapPlace
  /** Of supervisors, too. */
  logLevel?: LogLevel
  /** Without it nothing is logged but what supervisors write to files of theirs. */
  log?: Log
  notify?: NotifyOptions
}

/**
 * Resolves when the agent serves; it ends by SIGTERM or SIGINT.
 * @throws SubpageError AGENT_RUNNING, ADDRESS_IN_USE, BAD_ARGUMENT, SECRET_EXPOSED, TLS_REQUIRED
 */
export async function serve(options: ServeOptions): Promise<Agent> {
  const { stateDirectory } = options
  const { listen, channels } = checkOptions(options)
  const socket = apiSocket(stateDirectory)
  // Before anything is there: a name of one letter must have room at least.
  guestFiles(stateDirectory, 'x')
  assertOwnProc()
  process.umask(0o077)
  makePrivateDirectory(resolve(stateDirectory))
  const { time: begun } = now()
  const lock = await lockState(stateDirectory, socket)
  let started: Agent | undefined
  try {
    const credentials = options.tls ? watchCredentials(options.tls) : undefined
    const { arbiter } = chooseArbiter(options.arbiter ?? {}, defaultStateDirectory())
    const faults = setting('SUBPAGE_FAULT')
    readFaults(faults)
    started = await Agent.start({
      stateDirectory: resolve(stateDirectory),
      host: hostNameOf(options, credentials?.()),
      listen,
      advertise: options.advertise === undefined ? undefined : parseTcpAddress(options.advertise),
      transport: createTransport(credentials),
      images: options.images,
      diskDirectories: options.diskDirectories,
      arbiter: absolute(options.arbiter ?? {}),
      arbiterOpened: arbiter,
      tls: options.tls && absolute(options.tls),
      swap: options.swap,
      logLevel: options.logLevel ?? 'info',
      ...(faults !== undefined && { faults }),
    })
    const agent = started
    if (options.log) logEvents(agent, options.log)
    notify(agent.eventLog, agent.hostName, channels, begun)
    warnOfExpiry(agent, credentials?.())
    let listening: Promise<ListeningApi> | undefined
    if (options.api) {
      const { listen: where, tokenFile, readTokenFile } = options.api
      listening = listenApi(agent, {
        address: parseTcpAddress(where),
        tokenFile,
        readTokenFile,
        credentials,
        log: options.log,
      })
      const { address } = await listening
      agent.eventLog.add('', 'guest', `the API listens on ${formatAddress(address)}`)
    }
    const api = buildApi(agent)
    if (options.log) logRequests(api, options.log)
    addMetrics(api, agent)
    addInvitations(api, () => {
      listening ??= listenLoopback(agent, options.log)
      return listening
    })
    // The socket of an agent that was killed: nobody answers on it.
    rmSync(socket, { force: true })
    await api.ready()
    // Node binds at once, so the socket has mode 0600 from its first moment.
    process.umask(0o177)
    api.server.listen(socket)
    process.umask(0o077)
    await once(api.server, 'listening')

    const end = async () => {
      tellServiceManager('STOPPING=1')
      await agent.close()
      rmSync(socket, { force: true })
      process.exit(0)
    }
    process.once('SIGTERM', end)
    process.once('SIGINT', end)
    // Whoever is told may end us at once.
    const untold = tellServiceManager('READY=1')
    if (untold !== undefined) agent.eventLog.add('', 'guest', untold)
    else keepServiceManagerInformed()
    return agent
  } catch (error) {
    lock.release()
    await started?.close()
    throw error
  }
}

/**
 * What can be known to be wrong before anything is begun.
 * @throws SubpageError BAD_ARGUMENT, SECRET_EXPOSED, TLS_REQUIRED
 */
function checkOptions(options: ServeOptions): {
  listen: TcpAddress | undefined
  channels: ReturnType<typeof openChannels>
} {
  const listen = options.listen === undefined ? undefined : parseTcpAddress(options.listen)
  if (options.tls && !listen)
    throw new SubpageError(
      'BAD_ARGUMENT',
      'with certificates other hosts are to reach this one: give --listen ADDRESS, too',
    )
  if (listen && options.advertise === undefined && /^(0\.0\.0\.0|::)$/.test(listen.host))
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${listen.host} is no address that another host can call: name one with --advertise`,
    )
  if (options.advertise !== undefined) parseTcpAddress(options.advertise)
  // What supervisors make of these is looked at now, while somebody waits for the answer.
  readImageDirectories(options.images)
  readDiskDirectories(options.diskDirectories)
  return { listen, channels: openChannels(options.notify ?? {}) }
}

/**
 * The same, and what is in the files that are named: for `--check-config`, which begins nothing.
 * @throws SubpageError as serve
 */
export async function checkServe(options: ServeOptions): Promise<void> {
  checkOptions(options)
  const credentials = options.tls ? watchCredentials(options.tls)() : undefined
  hostNameOf(options, credentials)
  if (options.arbiter?.spec !== undefined) chooseArbiter(options.arbiter, options.stateDirectory)
  if (!options.api) return
  const { listen, tokenFile, readTokenFile } = options.api
  const address = parseTcpAddress(listen)
  for (const file of [tokenFile, readTokenFile]) if (file !== undefined) readToken(file)
  if (!credentials) await assertLoopback(address)
}

/** Those of the agent's own beginning, too. */
function logEvents(agent: Agent, log: Log): void {
  const { time } = now()
  agent.eventLog.follow((event) => logEvent(log, event, time))
}

/** Supervisors may be started anew by an agent in another directory. */
const absolute = <T extends object>(files: T): T =>
  Object.fromEntries(
    Object.entries(files).map(([key, value]) => [
      key,
      /^(ca|cert|key)$|File$/.test(key) ? resolve(value) : value,
    ]),
  ) as T

const warningMs = 30 * 86_400_000

/** An agent starts with a certificate that has expired, too: its guests need it, and a new one needs no restart. */
function warnOfExpiry(agent: Agent, credentials: Credentials | undefined): void {
  if (!credentials) return
  const { validFrom, validTo, name } = credentials
  const words = `the certificate of ${name} is valid from ${validFrom.toISOString()} to ${validTo.toISOString()}`
  // Certificates go by the wall clock.
  const today = Date.now()
  if (Number(validTo) < today || Number(validFrom) > today)
    agent.eventLog.add('', 'refused', `${words}: other hosts will refuse this one`)
  else if (Number(validTo) < today + warningMs) agent.eventLog.add('', 'guest', `${words}: renew it soon`)
}

/** With a certificate a host is who its certificate says. @throws SubpageError BAD_ARGUMENT */
function hostNameOf({ hostName }: ServeOptions, credentials: Credentials | undefined): string {
  if (!credentials) return hostName ?? hostname()
  if (hostName !== undefined && hostName !== credentials.name)
    throw new SubpageError(
      'BAD_ARGUMENT',
      `--host is ${hostName}, but the certificate is for ${credentials.name}: leave --host out, or make a certificate for that name`,
    )
  return credentials.name
}
