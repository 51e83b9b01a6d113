/**
 * A guest that a study starts for itself, without an agent, gives programs to run through its console, and ends. Studies
 * derive from it what they measure.
 */
import { randomUUID } from 'node:crypto'
import { appendFileSync, mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chooseAccel } from 'subpage/qemu/accel'
import {
  type Console,
  consoleAt,
  consoleLength,
  demoGuestOptions,
  guestImage,
  typeLine,
  untilConsole,
} from 'subpage/qemu/demo-guest'
import { guestFiles } from 'subpage/qemu/guest-files'
import { launch } from 'subpage/qemu/launch'
import type { PluginPart } from 'subpage/qemu/plugin'
import { QemuProcess } from 'subpage/qemu/qemu-process'
import { PluginShare } from './plugin/share.ts'
import { Reaper } from './reaper.ts'

const startMsMax = 120_000

export interface Wanted {
  name: string
  /** In build/guest; several are one after the other. */
  initrd: string | readonly string[]
  ramBytes: number
  accel?: 'auto' | 'tcg'
  /** What QEMU's plugin is to note; TCG then. */
  track?: PluginPart[]
  /** Of QEMU. */
  moreOptions?: readonly string[]
}

/** A guest that runs, at rest. */
export interface Started {
  qemu: QemuProcess
  reaper: Reaper
  /** Its state directory, its own. */
  directory: string
  /** Says how long its processor has run: proc(5), schedstat. */
  clock: string
}

/** @throws SubpageError NOT_SET_UP when the guest's image is not built; what `launch` throws; nothing is left then */
export async function startGuest({
  name,
  initrd,
  ramBytes,
  accel = 'auto',
  track = [],
  moreOptions = [],
}: Wanted): Promise<Started> {
  const directory = mkdtempSync(join(tmpdir(), 'subpage-study-'))
  const files = guestFiles(directory, name)
  const reaper = new Reaper(directory, [files.ram, files.accesses])
  let qemu: QemuProcess | undefined
  try {
    const image = typeof initrd === 'string' ? initrd : joined(initrd, directory)
    const options = [...demoGuestOptions(['workload=idle'], image), ...moreOptions]
    const chosen = await chooseAccel({ accel, track })
    const machine = { type: 'q35', ramBytes, accel: chosen, options, nics: [], disks: [], track }
    const identity = { id: randomUUID(), name, generation: 1 }
    qemu = new QemuProcess(files, await launch(identity, machine, files, false))
    const [cpu] = await qemu.qmp.run<{ 'thread-id': number }[]>('query-cpus-fast')
    const clock = `/proc/${qemu.record.process.pid}/task/${cpu?.['thread-id']}/schedstat`
    await untilSaid(consoleAt(files.consoleLog), /^idle started/m, 0)
    return { qemu, reaper, directory, clock }
  } catch (error) {
    await qemu?.end()
    await reaper.end()
    throw error
  }
}

/** Linux takes archives that follow each other for one. */
function joined(initrds: readonly string[], directory: string): string {
  const path = join(directory, 'initrd.gz')
  for (const initrd of initrds) appendFileSync(path, readFileSync(guestImage(initrd)))
  return path
}

export class StudyGuest {
  readonly qemu: QemuProcess
  readonly directory: string
  readonly console: Console
  readonly accel: string
  readonly #reaper: Reaper
  readonly #clock: string
  #ended = false

  constructor({ qemu, reaper, directory, clock }: Started) {
    this.qemu = qemu
    this.#reaper = reaper
    this.directory = directory
    this.console = consoleAt(qemu.files.consoleLog)
    this.accel = qemu.record.machine.accel
    this.#clock = clock
  }

  /** Starts a program and waits until it says that it is ready. */
  async begin(command: string, ready: RegExp): Promise<void> {
    const from = consoleLength(this.console)
    await typeLine(this.console, `run ${command} >/dev/ttyS0 2>&1 &`)
    await this.until(ready, from)
  }

  /** Ends programs by name and waits until they are gone. @param signal as killall(1) names it */
  async endPrograms(names: string, signal = 'TERM'): Promise<void> {
    const from = consoleLength(this.console)
    await typeLine(
      this.console,
      `run killall -${signal} ${names}; while pidof ${names} >/dev/null; do sleep 0.1; done; echo "study: gone"`,
    )
    await this.until(/^study: gone/m, from)
  }

  /** Waits for words on the console, from an offset in it. @returns what is there from that on */
  until(pattern: RegExp, from: number): Promise<string> {
    return untilSaid(this.console, pattern, from)
  }

  /** Time that the guest's processor has run, in nanoseconds. */
  processorNs(): number {
    return Number(readFileSync(this.#clock, 'utf8').split(' ')[0])
  }

  /** Time that it could have run and did not, others having this host's processors, in nanoseconds. */
  deprivedNs(): number {
    return Number(readFileSync(this.#clock, 'utf8').split(' ')[1])
  }

  stop = () => this.qemu.qmp.run('stop')
  go = () => this.qemu.qmp.run('cont')

  /** Has the plugin note accesses from now on; the guest is slower from then on. */
  async openShare(): Promise<PluginShare> {
    const share = PluginShare.open(this.qemu.files.accesses)
    try {
      await share.untilActive(async () => {
        await this.stop()
        await this.go()
      })
      return share
    } catch (error) {
      share.close()
      throw error
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.end()
  }

  async end(): Promise<void> {
    if (this.#ended) return
    this.#ended = true
    await this.qemu.end()
    await this.#reaper.end()
  }
}

const untilSaid = (console: Console, pattern: RegExp, from: number) =>
  untilConsole(console, from, (text) => (pattern.test(text) ? text : undefined), startMsMax)
