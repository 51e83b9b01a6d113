/**
 * The network of a guest that has an active slave. Clients outside reach the guest through QEMU's user network; each packet that the
 * guest is given in an epoch is given to its slave as long after the epoch's begin, and what the slave sends is dropped.
 *
 * While the guest stands still what comes for it waits before its card: loading the state of a card drops what waits behind.
 */
import { once } from 'node:events'
import { mkdtempSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SubpageError } from 'subpage/errors'
import type { Qmp } from 'subpage/qemu/qmp'
import { Reaper } from '../../reaper.ts'
import { framed, PacketReader } from './packets.ts'
import type { Meanwhile } from './slave-pair.ts'

/** As the user network wants it; of its own. */
export const guestAddress = '10.0.2.15'
const netdev = 'study-net'
const gate = 'study-gate'
/** A buffer wants an interval, of the guest's time: an hour. */
const gateUs = 3_600_000_000

/** No announcement after a load: it would be a difference between states that are equal. */
const card = ['-device', `virtio-net-pci,netdev=${netdev},mac=02:00:00:00:51:01,romfile=,guest_announce=off`]

interface Heard {
  atMs: number
  packet: Buffer
}

export class SlaveNetwork implements AsyncDisposable {
  /** QEMU's options. */
  readonly ofPrimary: readonly string[]
  readonly ofSlave: readonly string[]
  readonly #reaper: Reaper
  readonly #servers: readonly Server[]
  readonly #sockets = new Set<Socket>()
  #toSlave: Socket | undefined
  #beganAt = 0
  #heard: Heard[] = []
  /** Packets that the guest was given, and its slave. */
  readonly counts = { primary: 0, slave: 0 }

  private constructor(folder: string, port: number) {
    this.#reaper = new Reaper(folder)
    const [heard, slave] = [join(folder, 'heard'), join(folder, 'slave')]
    this.ofPrimary = [
      ...[
        '-netdev',
        `user,id=${netdev},restrict=on,hostfwd=tcp:127.0.0.1:0-${guestAddress}:${port}`,
        ...card,
      ],
      // In this order packets meet them.
      ...['-object', `filter-buffer,id=${gate},netdev=${netdev},queue=tx,interval=${gateUs},status=off`],
      ...['-chardev', `socket,id=study-heard,path=${heard}`],
      ...['-object', `filter-mirror,id=study-mirror,netdev=${netdev},queue=tx,outdev=study-heard`],
    ]
    this.ofSlave = [
      ...['-netdev', `stream,id=${netdev},server=off,addr.type=unix,addr.path=${slave}`, ...card],
      // Its state is among those that are loaded; nothing is connected to it.
      ...['-netdev', 'user,id=study-idle,restrict=on'],
    ]
    const reader = new PacketReader()
    this.#servers = [
      this.#serve(heard, (socket) =>
        socket.on('data', (piece) => {
          for (const packet of reader.push(piece)) this.#hear(packet)
        }),
      ),
      this.#serve(slave, (socket) => {
        this.#toSlave = socket.resume()
      }),
    ]
  }

  /** @param port on which the guest serves */
  static async open(port: number): Promise<SlaveNetwork> {
    const network = new SlaveNetwork(mkdtempSync(join(tmpdir(), 'subpage-study-net-')), port)
    await Promise.all(network.#servers.map((server) => once(server, 'listening')))
    return network
  }

  /** @returns the port of this host that leads to the guest's. @throws SubpageError QEMU_FAILED */
  static async portOf(qmp: Qmp): Promise<number> {
    const said = await qmp.run<string>('human-monitor-command', { 'command-line': 'info usernet' })
    const port = /HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)/.exec(said)?.[1]
    if (port === undefined) throw new SubpageError('QEMU_FAILED', `QEMU forwards no port: ${said}`)
    return Number(port)
  }

  /** The guest is about to stand still. */
  hold = (qmp: Qmp): Promise<unknown> => setGate(qmp, 'on')

  /** An epoch of the guest. What has waited is its first. */
  ofGuest(qmp: Qmp): Meanwhile {
    return {
      begin: () => {
        this.#heard = []
        this.#beganAt = performance.now()
        return setGate(qmp, 'off')
      },
      end: () => this.hold(qmp),
    }
  }

  /** An epoch of the slave: it gets what the guest got in its last one, at the same times. */
  replay(): Meanwhile {
    let timers: NodeJS.Timeout[] = []
    const give = (packet: Buffer) => {
      this.counts.slave++
      this.#toSlave?.write(framed(packet))
    }
    return {
      begin: () => {
        timers = this.#heard.map(({ atMs, packet }) => setTimeout(() => give(packet), atMs))
      },
      end: () => {
        for (const timer of timers) clearTimeout(timer)
      },
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    for (const server of this.#servers) server.close()
    await this.#reaper.end()
  }

  #hear(packet: Buffer): void {
    this.counts.primary++
    this.#heard.push({ atMs: performance.now() - this.#beganAt, packet })
  }

  #serve(path: string, connected: (socket: Socket) => void): Server {
    const server = createServer((socket) => {
      this.#sockets.add(socket)
      // QEMU ends when the study does, and takes its connections with it.
      socket.on('error', () => undefined)
      connected(socket)
    })
    return server.listen(path)
  }
}

const setGate = (qmp: Qmp, status: 'on' | 'off'): Promise<unknown> =>
  qmp.run('qom-set', { path: `/objects/${gate}`, property: 'status', value: status })
