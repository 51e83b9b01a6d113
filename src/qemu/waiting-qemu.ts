/**
 * The standby's QEMU: the same machine, started with -incoming and listening for its device state, its RAM file being
 * the image. Taking over is: connect, write the state, wait until QEMU says that it has loaded, `cont`.
 */
import { once } from 'node:events'
import { chmodSync } from 'node:fs'
import { createConnection } from 'node:net'
import { join } from 'node:path'
import { SubpageError } from '../errors.ts'
import type { GuestDescription, GuestEnd, WaitingGuest } from '../replication/guest.ts'
import type { GuestFiles } from './guest-files.ts'
import { lastWords, launch } from './launch.ts'
import type { Machine } from './options.ts'
import { QemuProcess } from './qemu-process.ts'
import type { Qmp, QmpEvent } from './qmp.ts'

export class WaitingQemu implements WaitingGuest {
  readonly qemu: QemuProcess
  #discarded = false

  private constructor(qemu: QemuProcess) {
    this.qemu = qemu
  }

  /** @throws SubpageError as launch() does; PEER_MISMATCH when this host's QEMU is another than the primary's. */
  static async start(description: GuestDescription, files: GuestFiles): Promise<WaitingQemu> {
    const { qemu: version, ...machine } = description.hypervisor
    const launched = await launch(
      description.name,
      { ...(machine as Omit<Machine, 'ramBytes'>), ramBytes: description.ramBytes },
      files,
      true,
    )
    const qemu = new QemuProcess(files, launched)
    if (launched.qmp.version !== version) {
      await qemu.end()
      throw new SubpageError(
        'PEER_MISMATCH',
        `the primary runs QEMU ${version}, this host has ${launched.qmp.version}: install the same on both`,
      )
    }
    await qemu.qmp.run('migrate-set-capabilities', {
      capabilities: [{ capability: 'events', state: true }],
    })
    await qemu.qmp.run('migrate-incoming', { uri: `unix:${incomingSocket(files)}` })
    chmodSync(incomingSocket(files), 0o600)
    return new WaitingQemu(qemu)
  }

  get image() {
    return this.qemu.ram
  }

  get ended(): Promise<GuestEnd> {
    return this.qemu.ended.then((end) =>
      this.#discarded
        ? { how: 'stopped', detail: 'it was discarded' }
        : { ...end, detail: `the waiting QEMU ended: ${lastWords(this.qemu.files)}` },
    )
  }

  async takeOver(deviceState: Uint8Array): Promise<void> {
    const { qmp, files } = this.qemu
    const loaded = migrationEnd(qmp)
    const socket = createConnection(incomingSocket(files))
    await once(socket, 'connect')
    socket.end(deviceState)
    const outcome = await loaded
    socket.destroy()
    if (outcome !== 'completed')
      throw new SubpageError('QEMU_FAILED', `QEMU could not load the device state: ${lastWords(files)}`)
    await Promise.all(qmp.pipeline([{ execute: 'cont' }]))
    this.qemu.updateRecord({ waiting: false })
  }

  async discard(): Promise<void> {
    this.#discarded = true
    await this.qemu.end()
  }
}

function incomingSocket(files: GuestFiles): string {
  return join(files.directory, 'incoming.sock')
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
