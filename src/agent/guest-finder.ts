/**
 * Finds the guests again that a former agent left in the state directory: each by itself, so that one that hangs keeps neither
 * the others nor this agent waiting.
 */
import { rmSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { asSubpageError } from '../errors.ts'
import { type GuestFiles, type GuestRecord, guestFiles, guestNames, readRecord } from '../qemu/guest-files.ts'
import { QemuProcess } from '../qemu/qemu-process.ts'
import { guarded } from './boundary.ts'
import type { Host } from './host.ts'
import type { HostedGuest } from './hosted-guest.ts'
import { RunningGuest } from './running-guest.ts'
import { endLeft } from './standby-guest.ts'
import { UnansweredGuest } from './unanswered-guest.ts'

/** An agent that begins waits this long for those that do not answer at once. */
const foundMs = 2_000

export interface FinderOptions {
  stateDirectory: string
  host: Host
  guests: Map<string, HostedGuest>
  adopt: (guest: RunningGuest) => RunningGuest
}

export class GuestFinder {
  readonly #options: FinderOptions
  /** By name; each settles when its guest was found, has ended or counts as hung. */
  readonly #finding = new Map<string, Promise<void>>()
  #listed!: () => void
  /** Connections may come before. */
  readonly #allListed = new Promise<void>((resolve) => {
    this.#listed = resolve
  })

  constructor(options: FinderOptions) {
    this.#options = options
  }

  /** Resolves when all were found that answer soon. */
  async begin(): Promise<void> {
    const { stateDirectory } = this.#options
    for (const name of guestNames(stateDirectory))
      this.#finding.set(name, this.#find(name, guestFiles(stateDirectory, name)))
    this.#listed()
    const timer = new AbortController()
    // Woken when it is not needed any more.
    const enough = delay(foundMs, undefined, { signal: timer.signal }).catch(() => undefined)
    await Promise.race([Promise.all(this.#finding.values()), enough])
    timer.abort()
  }

  /** Resolves when it is known what the guest of this name is here. */
  async known(name: string): Promise<void> {
    await this.#allListed
    await this.#finding.get(name)
  }

  async #find(name: string, files: GuestFiles): Promise<void> {
    let record: GuestRecord | undefined
    let unanswered: UnansweredGuest | undefined
    try {
      record = readRecord(files)
      // A start that was cut short; or a standby: its image may be torn, and the frames that would mend it died with the
      // former agent. Its primary seeds anew.
      if (!record || record.waiting) return await endLeft(files, record, this.#options.host)
      unanswered = new UnansweredGuest(record, files, this.#options.host)
      this.#options.guests.set(name, unanswered)
      await Promise.race([this.#attach(unanswered), unanswered.hung])
    } catch (error) {
      this.#lost(name, files, record, unanswered, error)
    }
  }

  async #attach(unanswered: UnansweredGuest): Promise<void> {
    const { name, record, files } = unanswered
    const { host, guests, adopt } = this.#options
    try {
      const qemu = await QemuProcess.attach(files, record, (step) => unanswered.doing(step))
      // Removed meanwhile, or superseded.
      if (guests.get(name) !== unanswered) return qemu?.release()
      if (!qemu) {
        rmSync(files.ram, { force: true })
        const end = { how: 'died' as const, detail: 'it ended while no agent ran' }
        guests.set(name, { kind: 'ended', name, record, files, end })
        return
      }
      const guest = adopt(new RunningGuest(qemu, host))
      host.events.add(name, 'guest', `found again: process ${record.process.pid}`)
      if (record.protection) guest.goOnProtecting(record.protection, true)
      // The former agent may have died while it ended a protection.
      else
        guarded({ events: host.events, guest: name, doing: 'letting its outputs out' }, () =>
          guest.guest.freeOutputs(),
        )
    } catch (error) {
      this.#lost(name, files, record, unanswered, error)
    } finally {
      unanswered.close()
    }
  }

  /** One guest that cannot be taken up must not keep the others waiting. */
  #lost(
    name: string,
    files: GuestFiles,
    record: GuestRecord | undefined,
    unanswered: UnansweredGuest | undefined,
    error: unknown,
  ): void {
    const { host, guests } = this.#options
    if (guests.get(name) !== unanswered) return
    const detail = `it could not be found again: ${asSubpageError(error).message}`
    guests.set(name, { kind: 'ended', name, record, files, end: { how: 'died', detail } })
    host.events.add(name, 'guest', detail)
  }
}
