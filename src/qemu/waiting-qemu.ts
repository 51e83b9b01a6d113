/**
 * The standby's QEMU: the same machine, started with -incoming and listening for its device state, its RAM file being
 * the image. Taking over is: connect, write the state, wait until QEMU says that it has loaded, `cont`.
 */
import { once } from 'node:events'
import { chmodSync } from 'node:fs'
import { createConnection } from 'node:net'
import { SubpageError } from '../errors.ts'
import { dataPagesAt } from '../memory/data-pages.ts'
import { pageBytes } from '../memory/page.ts'
import type { GuestDescription, GuestEnd, WaitingGuest } from '../replication/guest.ts'
import { removeDisks } from './disk-files.ts'
import type { GuestFiles } from './guest-files.ts'
import { lastWords, launch, type Starter } from './launch.ts'
import { type HostPlaces, readDescription } from './machine-description.ts'
import { refusalOfVersion } from './other-version.ts'
import { QemuProcess } from './qemu-process.ts'
import type { Qmp, QmpEvent } from './qmp.ts'

/** Milliseconds, and how often: the first ones may meet a network that is just finding its way. */
const announcements = { initial: 10, max: 550, rounds: 10, step: 50 }

export class WaitingQemu implements WaitingGuest {
  readonly blank = true
  readonly qemu: QemuProcess
  readonly parts: readonly string[]
  readonly #starter: Starter | undefined
  readonly #made: string[]
  #discarded = false

  private constructor(
    qemu: QemuProcess,
    parts: readonly string[],
    made: string[],
    starter: Starter | undefined,
  ) {
    this.qemu = qemu
    this.#made = made
    this.parts = parts
    this.#starter = starter
  }

  /** @throws SubpageError as launch() does; PEER_MISMATCH when this host's QEMU is another than the primary's. */
  static async start(
    description: GuestDescription,
    generation: number,
    files: GuestFiles,
    places: HostPlaces,
    starter?: Starter,
  ): Promise<WaitingQemu> {
    const found = starter?.disks === undefined ? files : { ...files, disks: starter.disks }
    const { version, machine } = readDescription(description, found, places)
    const launched = await launch({ ...description, generation }, machine, files, true, starter)
    const { incoming = files.incoming } = launched
    const qemu = new QemuProcess({ ...files, incoming }, launched)
    try {
      const refusal = refusalOfVersion(version, launched.qmp.version, machine.type)
      if (refusal !== undefined) throw new SubpageError('PEER_MISMATCH', refusal)
      await qemu.qmp.run('migrate-set-capabilities', {
        capabilities: [{ capability: 'events', state: true }],
      })
      const parts = await partsOf(qemu)
      clear(qemu)
      await qemu.qmp.run('migrate-incoming', { uri: `unix:${incoming}` })
      chmodSync(incoming, 0o600)
      return new WaitingQemu(qemu, parts, launched.made, starter)
    } catch (error) {
      await abandon(qemu, launched.made, starter)
      throw error
    }
  }

  get ended(): Promise<GuestEnd> {
    return this.qemu.ended.then((end) =>
      this.#discarded
        ? { how: 'stopped', detail: 'it was discarded' }
        : { ...end, detail: `the waiting QEMU ended: ${lastWords(this.qemu.files)}` },
    )
  }

  async takeOver(deviceState: Uint8Array, suspended: boolean, begin: () => void): Promise<void> {
    const { qmp, files, hang } = this.qemu
    // Whoever was granted the guest and cannot run it gives it back, and must be sure then that it does not run later.
    const stuck = () => this.qemu.endHung('its QEMU hung when it was to take the guest over, and was ended')
    hang.on('stuck', stuck)
    const loaded = migrationEnd(qmp)
    const opened = this.qemu.openNetwork()
    const socket = createConnection(files.incoming)
    await once(socket, 'connect')
    // QEMU hangs up on a state that it cannot load, and says so in its log: `loaded` tells.
    socket.on('error', () => undefined)
    socket.end(deviceState)
    const outcome = await loaded
    socket.destroy()
    if (outcome !== 'completed')
      throw new SubpageError('QEMU_FAILED', `QEMU could not load the device state: ${lastWords(files)}`)
    await opened
    begin()
    this.qemu.devices.maps.unsettle()
    // Before it runs: an agent that is killed here must not leave a record by which the next one ends the guest.
    this.qemu.noteRecord({ waiting: false, suspended })
    // Bridges and switches learn from the announcements where the guest is now; it sends the first one itself.
    const run = suspended ? [] : [{ execute: 'cont' }]
    await qmp.pipeline([...run, { execute: 'announce-self', arguments: announcements }])[0]
    hang.removeListener('stuck', stuck)
  }

  /** It cannot be used: it goes, with what its start has made. */
  async abandon(): Promise<void> {
    this.#discarded = true
    await abandon(this.qemu, this.#made, this.#starter)
  }

  async discard(disksToo: boolean): Promise<void> {
    this.#discarded = true
    await this.qemu.end()
    await this.#starter?.forget(this.qemu.record.name)
    if (!disksToo) return
    const { disks, firmware } = this.qemu.record.machine
    this.qemu.devices.maps.remove()
    removeDisks(disks.filter(({ made }) => made).map(({ path }) => path))
    if (firmware?.made) removeDisks([firmware.nvram])
  }
}

async function abandon(qemu: QemuProcess, made: string[], starter: Starter | undefined): Promise<void> {
  await qemu.end()
  await starter?.forget(qemu.record.name)
  removeDisks(made)
}

/** QEMU has placed its ROMs in the memory: those of the guest come with the image. */
function clear({ ram, ramPath }: QemuProcess): void {
  const zeros = new Uint8Array(pageBytes)
  for (const page of dataPagesAt(ramPath, ram.bytes).pages()) ram.write(page * pageBytes, zeros)
}

/** While it waits a machine saves the state that its devices have at the start: of the same devices as what it is to load. */
async function partsOf({ qmp, deviceState, parts }: QemuProcess): Promise<string[]> {
  await qmp.run('xen-save-devices-state', { filename: deviceState.pathInQemu, live: false })
  await parts.look()
  return parts.of(deviceState.read())
}

/** How the load ended: QEMU's MigrationStatus, or `died`. */
function migrationEnd(qmp: Qmp): Promise<string> {
  return new Promise((resolve) => {
    const onEvent = ({ event, data }: QmpEvent) => {
      if (event === 'MIGRATION' && (data?.status === 'completed' || data?.status === 'failed'))
        resolve(data.status)
    }
    qmp.on('event', onEvent)
    qmp.on('close', () => resolve('died'))
  })
}
