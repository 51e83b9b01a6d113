/** The guests of the study: real ones, started for it, that work for a while and are gone afterwards. */
import { randomUUID } from 'node:crypto'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { invariant } from 'subpage/errors'
import { probeAccel } from 'subpage/qemu/accel'
import { type Console, consoleAt, demoGuestOptions, untilConsole } from 'subpage/qemu/demo-guest'
import { guestFiles } from 'subpage/qemu/guest-files'
import { launch } from 'subpage/qemu/launch'
import { QemuGuest } from 'subpage/qemu/qemu-guest'
import { QemuProcess } from 'subpage/qemu/qemu-process'
import { Reaper } from '../reaper.ts'

const startMsMax = 120_000

export interface Role {
  name: string
  /** Kernel arguments: what it does. */
  append: string[]
  initrd: string
  kernel?: string
  ramBytes: number
  /** What it prints once it works. */
  ready: RegExp
  /** How it says what it has done, with a number that rises evenly; none from a guest that does no work of its own. */
  progress?: RegExp
}

const demo = { initrd: 'initrd.gz', ramBytes: 128 * 2 ** 20 }
// Its kernel unpacks the image within the guest's memory.
// Another kernel, and programs that are linked against shared libraries.
const other = { initrd: 'initrd-other.gz', kernel: 'vmlinuz-other', ramBytes: 128 * 2 ** 20 }
const workloads = { initrd: 'initrd-workloads.gz', ramBytes: 256 * 2 ** 20 }

/** Different work; one whose memory is random numbers, which nothing can make smaller; another kernel and libraries. */
export const roles = {
  idle: { name: 'idle', append: ['workload=idle'], ...demo, ready: /^idle started/m },
  shell: { name: 'shell', append: ['workload=shell'], ...demo, ready: /^shell round=3/m },
  sum: { name: 'sum', append: ['workload=sum'], ...demo, ready: /^subpage-guest: ready/m },
  redis: { name: 'redis', append: ['workload=redis'], ...workloads, ready: /^subpage-guest: ready/m },
  sqlite: {
    name: 'sqlite',
    append: ['workload=sqlite'],
    ...workloads,
    ready: /^sqlite transactions=/m,
    progress: /^sqlite transactions=(\d+) total/m,
  },
  random: {
    name: 'random',
    append: ['victim_mib=40', 'victim_rate=0', 'victim_verify_ms=600000'],
    ...demo,
    ready: /^victim step=/m,
    progress: /^victim step=(\d+) pages=/m,
  },
  otherShell: {
    name: 'other-shell',
    append: ['workload=shell'],
    ...other,
    ready: /^shell round=3/m,
  },
} satisfies Record<string, Role>

export interface Member {
  role: Role
  guest: QemuGuest
  console: Console
}

export class Fleet {
  readonly members: Member[] = []
  readonly directory = mkdtempSync(join(tmpdir(), 'subpage-study-'))
  /** Of pages that are held densely; in memory. */
  readonly storeDirectory = `/dev/shm/${basename(this.directory)}`
  /** Of copies of the guests' memories; in memory, too. */
  readonly memoriesDirectory = `${this.storeDirectory}-memories`
  readonly #reaper = new Reaper(this.directory, [
    ...Object.values(roles).map(({ name }) => guestFiles(this.directory, name).ram),
    this.storeDirectory,
    this.memoriesDirectory,
  ])
  accel = ''

  /**
   * Resolves when all of them work. The others stand still meanwhile: these begin sooner.
   * @throws SubpageError NOT_SET_UP when the guests' images are not built; what `launch` throws
   */
  start(some: readonly Role[]): Promise<void> {
    return this.stopped(async () => {
      const begun: Member[] = []
      for (const role of some) begun.push(await this.#begin(role))
      await Promise.all(
        begun.map(({ role, console }) =>
          untilConsole(console, 0, (text) => (role.ready.test(text) ? true : undefined), startMsMax),
        ),
      )
    })
  }

  async #begin(role: Role): Promise<Member> {
    const accel = await probeAccel()
    this.accel = accel
    const machine = {
      type: 'q35',
      ramBytes: role.ramBytes,
      accel,
      options: demoGuestOptions(role.append, role.initrd, role.kernel),
      nics: [],
      disks: [],
    }
    const files = guestFiles(this.directory, role.name)
    const identity = { id: randomUUID(), name: role.name, generation: 1 }
    const qemu = new QemuProcess(files, await launch(identity, machine, files, false))
    const member = { role, guest: new QemuGuest(qemu), console: consoleAt(files.consoleLog) }
    this.members.push(member)
    return member
  }

  member(name: string): Member {
    const found = this.members.find(({ role }) => role.name === name)
    invariant(found, `the guest ${name} was started`)
    return found
  }

  /** All stand still while their memory is looked at. */
  async stopped<T>(look: () => Promise<T>): Promise<T> {
    const each = this.members.map(({ guest }) => guest.qemu.qmp)
    await Promise.all(each.map((qmp) => qmp.run('stop')))
    try {
      return await look()
    } finally {
      await Promise.all(each.map((qmp) => qmp.run('cont')))
    }
  }

  /** All others stand still meanwhile. */
  async alone<T>(one: Member, work: () => Promise<T>): Promise<T> {
    const others = this.members.filter((member) => member !== one).map(({ guest }) => guest.qemu.qmp)
    await Promise.all(others.map((qmp) => qmp.run('stop')))
    try {
      return await work()
    } finally {
      await Promise.all(others.map((qmp) => qmp.run('cont')))
    }
  }

  async end(): Promise<void> {
    await Promise.all(this.members.map(({ guest }) => guest.qemu.end()))
    await this.#reaper.end()
  }
}

/** @throws the signal's reason */
export const pause = (ms: number, signal: AbortSignal) => delay(ms, undefined, { signal })
