/**
 * The supervisor of a guest as a process: `node main.js SETTINGS` (settings.ts). It is no child of the agent's that has to be
 * waited for, takes no signal of its terminal, and ends when there is no guest any more. SIGTERM ends it in no guest's pause,
 * as when the machine goes down; the guest runs on.
 */
import { once } from 'node:events'
import { constants, fstatSync, mkdirSync, rmSync, statSync, writeSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { type FileLock, lockFile } from '../../memory/file-lock.ts'
import { readDiskDirectories } from '../../qemu/disk-places.ts'
import {
  type GuestFiles,
  guestFiles,
  removeSupervisorFiles,
  type SupervisorFiles,
} from '../../qemu/guest-files.ts'
import { readImageDirectories } from '../../qemu/image-files.ts'
import { identify } from '../../qemu/process.ts'
import { release } from '../../release.ts'
import { realClock } from '../../replication/clock.ts'
import { readFaults } from '../../replication/fault.ts'
import { hotPageCosts } from '../../replication/hot-page-costs.ts'
import { pauseLimits } from '../../replication/pause-limits.ts'
import { pairSocket } from '../address.ts'
import { buildApi } from '../api.ts'
import { chooseArbiter } from '../arbiter-choice.ts'
import { ArbiterHealth } from '../arbiter-health.ts'
import { watchCredentials } from '../credentials.ts'
import { receiveSocket } from '../descriptors.ts'
import { EventLog } from '../event-log.ts'
import { EventStream } from '../event-stream.ts'
import { createLog, type Log, logEvent, logRequests, writeBounded } from '../log.ts'
import { watchLoop } from '../loop-delay.ts'
import { defaultStateDirectory } from '../state-directory.ts'
import { createTransport, type Transport } from '../transport.ts'
import { guarded } from './boundary.ts'
import { claimantOf, type Host } from './host.ts'
import { HostDensity } from './host-density.ts'
import { showPresence } from './presence.ts'
import { qemuHypervisor } from './qemu-hypervisor.ts'
import { followCertificate } from './screen-certificate.ts'
import { readSettings, type SupervisorSettings, supervisorProtocol } from './settings.ts'
import { Supervisor } from './supervisor.ts'

/** A primary that was refused, or told to come again, does so within this time. */
const idleMs = 3_000

const lastWordsMs = 500
const answersLookMs = 5
const lockBytes = 512

/** What an agent hears first from a supervisor, and last. */
export type Lifeline = { protocol: number; release: string; pid: number } | { left: string }

async function main(settingsFile: string): Promise<void> {
  process.umask(0o077)
  const settings = readSettings(settingsFile)
  process.title = `subpage supervisor ${settings.name}`
  const files = guestFiles(settings.stateDirectory, settings.name)
  const lock = lockAlone(files.supervisor)
  const transport = createTransport(settings.tls ? watchCredentials(settings.tls) : undefined)
  const host = hostOf(settings, transport)
  const address = settings.reachedAt ?? pairSocket(settings.stateDirectory)
  const supervisor = new Supervisor({ ...settings, host, address })
  await new Service(supervisor, transport, files, lock, logOf(settings, host)).begin()
}

/** Serves the API of the one guest, and ends the process when there is none any more. */
class Service {
  readonly #supervisor: Supervisor
  readonly #transport: Transport
  readonly #files: GuestFiles
  readonly #lock: FileLock
  readonly #api: FastifyInstance
  readonly #lifelines = new Set<EventStream>()
  /** Requests that change something: they are answered before the process ends. */
  #changing = 0
  #ending = false

  constructor(supervisor: Supervisor, transport: Transport, files: GuestFiles, lock: FileLock, log: Log) {
    this.#supervisor = supervisor
    this.#transport = transport
    this.#files = files
    this.#lock = lock
    this.#api = buildApi(supervisor)
    logRequests(this.#api, log)
    this.#api.addHook('onRequest', async ({ method }, { raw }) => {
      if (method === 'GET') return
      this.#changing++
      // Also when who asked has hung up before the answer.
      raw.once('close', () => {
        if (--this.#changing === 0) this.#leave(() => this.#endIfIdle())
      })
    })
    this.#api.get('/v1/supervisor', (_request, reply) => {
      const stream = new EventStream(reply, () => this.#lifelines.delete(stream))
      this.#lifelines.add(stream)
      stream.send({ protocol: supervisorProtocol, release, pid: process.pid } satisfies Lifeline)
    })
  }

  async begin(): Promise<void> {
    await this.#openDoor()
    await this.#supervisor.hosting.begin()
    await this.#api.ready()
    await listen(this.#api.server, this.#files.supervisor.socket)
    process.once('SIGTERM', () => this.#leave(() => this.#end(undefined)))
    // Those of a terminal are not for it.
    for (const signal of ['SIGINT', 'SIGHUP'] as const) process.on(signal, () => undefined)
    this.#supervisor.hosting.on('idle', () => this.#leave(() => this.#endIfIdle()))
    watchLoop(
      () => this.#supervisor.heartbeatMs,
      (ms) => this.#supervisor.host.events.add(this.#supervisor.name, 'guest', tooLate(ms)),
    )
    followCertificate(this.#supervisor)
    this.#leave(() => this.#endIfIdle())
  }

  /** For connections of other hosts, which the agent accepts. */
  async #openDoor(): Promise<void> {
    const { hosting, host, name } = this.#supervisor
    const meeting = { events: host.events, guest: name, doing: 'answering another host' }
    const door = this.#transport.door({
      connection: (incoming) => guarded(meeting, () => hosting.answer(incoming)),
      refused: (from, error) => hosting.refused(from, error),
    })
    const open = () => !this.#ending
    const server = createServer({ pauseOnConnect: true }, (agent) =>
      receiveSocket(agent, open, (socket, local) =>
        guarded(meeting, () => hosting.during(() => door.admitted(socket, local))),
      ),
    )
    await listen(server, this.#files.supervisor.door)
  }

  /** Fails that, the process ends all the same: what runs is found by the next one. */
  #leave(work: () => Promise<void>): void {
    const { host, name } = this.#supervisor
    const failed = () => process.exit(1)
    guarded({ events: host.events, guest: name, doing: 'ending its supervisor', failed }, work)
  }

  async #endIfIdle(): Promise<void> {
    const { hosting } = this.#supervisor
    if (!hosting.settled) await delay(idleMs)
    if (hosting.idle && this.#changing === 0) await this.#end(hosting.departure)
  }

  /** @param left why the guest is on this host no more; undefined: it runs on */
  async #end(left: string | undefined): Promise<void> {
    if (this.#ending) return
    this.#ending = true
    const { socket, door } = this.#files.supervisor
    // From here on an agent that wants something starts the next one.
    for (const path of [socket, door]) rmSync(path, { force: true })
    await this.#supervisor.close()
    const { hosting } = this.#supervisor
    // It may have been removed meanwhile.
    const gone = left ?? (hosting.idle ? hosting.departure : undefined)
    if (gone !== undefined) {
      for (const stream of this.#lifelines) stream.send({ left: gone } satisfies Lifeline)
      removeSupervisorFiles(this.#files)
    }
    // An agent that does not read hears of it otherwise.
    const heard = [...this.#lifelines].map((stream) => stream.end())
    await Promise.race([Promise.all([...heard, this.#answered()]), delay(lastWordsMs)])
    this.#lock.release()
    process.exit(0)
  }

  async #answered(): Promise<void> {
    while (this.#changing > 0) await delay(answersLookMs)
  }
}

/** Beside what the agent logs, which may be away: in a file that does not grow. */
function logOf({ logLevel, host, name }: SupervisorSettings, { events }: Host): Log {
  const log = createLog({
    level: logLevel,
    fields: { program: 'supervisor', host, guest: name, process: process.pid },
    write: (text) => writeBounded(process.stderr.fd, text),
    journal: false,
  })
  events.follow((event) => logEvent(log, { ...event, guest: '' }))
  return log
}

const tooLate = (ms: number) =>
  `the event loop of its supervisor was late by ${Math.round(ms)} ms: heartbeats go out late (is the host overloaded?)`

/** Two would end each other's standby. The file says who it is. @throws Error when another one runs */
function lockAlone({ lock: path }: SupervisorFiles): FileLock {
  for (;;) {
    const lock = lockFile(path, constants.O_RDWR | constants.O_CREAT, 0o600)
    if (!lock) throw new Error(`another supervisor holds ${path}`)
    // The one before us may have removed it meanwhile.
    if (statSync(path, { throwIfNoEntry: false })?.ino === fstatSync(lock.fd).ino) {
      // Not cut first: its room would go.
      writeSync(lock.fd, JSON.stringify(identify(process.pid)).padEnd(lockBytes), 0)
      return lock
    }
    lock.release()
  }
}

function hostOf(settings: SupervisorSettings, transport: Transport): Host {
  const { stateDirectory, host: name, reachedAt } = settings
  mkdirSync(stateDirectory, { recursive: true, mode: 0o700 })
  const events = new EventLog()
  const { arbiter, chosen } = chooseArbiter(settings.arbiter, defaultStateDirectory())
  const density = new HostDensity(stateDirectory, events, settings.swap)
  const places = {
    images: readImageDirectories(settings.images),
    disks: readDiskDirectories(settings.diskDirectories),
    ...(settings.tls && { certificate: settings.tls }),
  }
  if (settings.density) density.expect(settings.density.id, settings.density.settings)
  return {
    name,
    claimant: claimantOf(stateDirectory, name),
    arbiter,
    health: new ArbiterHealth(arbiter, events),
    arbiterChosen: chosen,
    addressFor: (peer) => ('path' in peer ? pairSocket(stateDirectory) : (reachedAt ?? '')),
    transport,
    places,
    hypervisor: qemuHypervisor(places),
    events,
    faults: readFaults(settings.faults),
    density,
    presence: showPresence(stateDirectory),
    clock: realClock,
    pauseLimits,
    hotPageCosts,
  }
}

/** Of mode 0600 from its first moment. */
async function listen(server: Server, path: string): Promise<void> {
  rmSync(path, { force: true })
  process.umask(0o177)
  server.listen(path)
  process.umask(0o077)
  await once(server, 'listening')
}

await main(process.argv[2] ?? '')
