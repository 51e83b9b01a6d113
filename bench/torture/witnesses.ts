/** Who sees what a guest that is failed over does to the world: a client, whoever counts frames, and the guest itself. */
import { execFile } from 'node:child_process'
import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import {
  askVictim,
  type Console,
  consoleDropped,
  guestImage,
  readConsole,
  recordLoop,
  recordsIn,
  untilConsole,
  victimDamage,
  victimLines,
} from '../../src/qemu/demo-guest.ts'
import { tapName } from '../../src/qemu/nic.ts'
import type { Connection } from '../../test/support/network.ts'
import type { TestHost, TwoHosts } from '../../test/support/two-hosts.ts'

const run = promisify(execFile)

export const victimArguments = ['mib=8', 'rate=300']
export const diskBytes = 32 * 2 ** 20
const recordBytes = 512
const sectors = diskBytes / recordBytes
/** Each number goes to a sector of the disk, is synced, and then said; the disk is gone round again and again. */
export const diskRecords = (pauseS: number) =>
  recordLoop(
    `printf '%0511d\\n' $i | dd of=/dev/vda bs=${recordBytes} seek=$((i % ${sectors})) conv=notrunc,fsync 2>/dev/null${pauseS > 0 ? ` && sleep ${pauseS}` : ''}`,
  )
const answerMsMax = 120_000
/** Of a console's log, so much tells it from another one. */
const headBytes = 4096

/** Adds numbers one after the other over one connection, without a pause, and knows what each answer must be. */
export class Client {
  readonly #hosts: TwoHosts
  readonly #address: string
  #connection: Connection | undefined
  #over = false
  #adding: Promise<void> = Promise.resolve()
  #added = 0n
  #sum = 0n
  adds = 0
  lost = 0
  resets = 0
  /** Since it was last set to 0. */
  longestMs = 0
  readonly errors: string[] = []

  /** @param address the guest's */
  constructor(hosts: TwoHosts, address: string) {
    this.#hosts = hosts
    this.#address = address
  }

  async start(): Promise<void> {
    this.#over = false
    await this.#connect()
    this.#adding = this.#add()
  }

  async end(): Promise<void> {
    this.#over = true
    this.#connection?.close()
    await this.#adding
  }

  /** Another guest, which has added nothing yet. */
  forget(): void {
    this.#added = 0n
    this.#sum = 0n
  }

  async #connect(): Promise<void> {
    const { network, client } = this.#hosts
    this.#connection = await network.connect(client, this.#address, 7070)
    // After a reset: an addition without an answer may have been done or not.
    const [seq, total] = await this.#ask('get')
    if (seq < this.#added)
      this.#lose(`after a reset the guest has ${seq} additions, acknowledged ${this.#added}`)
    this.#added = seq
    this.#sum = total
  }

  async #ask(line: string): Promise<[bigint, bigint]> {
    const connection = this.#connection!
    connection.received = ''
    connection.send(`${line}\n`)
    const text = await connection.until((received) => received.endsWith('\n'), answerMsMax)
    const [, seq, total] = /^ok (\d+) (\d+)\n$/.exec(text) ?? []
    if (seq === undefined || total === undefined) throw new Error(`no answer: ${text}`)
    return [BigInt(seq), BigInt(total)]
  }

  async #add(): Promise<void> {
    while (!this.#over) {
      const number = BigInt(++this.adds % 1000)
      const sentAt = performance.now()
      try {
        const [seq, total] = await this.#ask(`add ${number}`)
        if (seq !== this.#added + 1n || total !== this.#sum + number)
          this.#lose(
            `answer ${seq} ${total} after ${this.#added} ${this.#sum} and add ${number}: another history`,
          )
        this.#added = seq
        this.#sum = total
        this.longestMs = Math.max(this.longestMs, performance.now() - sentAt)
      } catch (error) {
        if (this.#over) return
        const reset = this.#connection?.ended !== undefined
        if (reset) this.resets++
        this.errors.push(`client: ${reset ? 'reset: ' : ''}${(error as Error).message}`)
        this.#connection?.close()
        await this.#connect().catch(() => delay(500))
      }
    }
  }

  #lose(what: string): void {
    this.lost++
    this.errors.push(`client: ${what}`)
  }
}

/** Sees which host's copy of a guest puts out frames, one after the other. */
export class Emissions {
  readonly #hosts: TwoHosts
  readonly #guest: string
  readonly #timer: NodeJS.Timeout
  readonly #counts = new Map<string, number>()
  #last: TestHost | undefined
  /** Times that another host's copy began to speak. */
  changes = 0
  readonly log: string[] = []

  constructor(hosts: TwoHosts, guest: string) {
    this.#hosts = hosts
    this.#guest = guest
    this.#timer = setInterval(() => this.#look(), 10)
  }

  #look(): void {
    const speakers = this.#hosts.hosts.filter((host) => {
      const tap = tapName(join(host.stateDirectory, 'guests', this.#guest), 0)
      const count = host.framesOut().get(tap)
      if (count === undefined) return false
      const before = this.#counts.get(tap) ?? 0
      this.#counts.set(tap, count)
      // Another tap of the same name counts from 0.
      return count !== before && count > 0
    })
    // Both within one look: the former one was first.
    for (const speaker of speakers.sort((x) => (x === this.#last ? -1 : 1))) {
      if (speaker === this.#last) continue
      if (this.#last) this.changes++
      this.#last = speaker
      this.log.push(`${new Date().toISOString()} ${speaker.name} test: its copy speaks`)
    }
  }

  end(): void {
    clearInterval(this.#timer)
  }
}

/** What the guest has said on one host so far, even when the host forgets it. */
export class Recording {
  readonly #file: number
  /** What was not in the file any more, and how it began, when the recording did. */
  readonly #dropped: number
  readonly #head: string

  constructor(console: Console) {
    this.#file = openSync(console.log, 'r')
    // Not by two sizes: the guest prints between.
    this.#dropped = consoleDropped(console)
    this.#head = this.#read(headBytes)
  }

  /** Of all the guest's output, what is kept of the first `bytes`. Undefined when the file was cut since. */
  until(bytes: number): string | undefined {
    const kept = bytes - this.#dropped
    if (this.#head === '' || this.#read(this.#head.length) !== this.#head) return undefined
    return fstatSync(this.#file).size < kept ? undefined : this.#read(Math.max(0, kept))
  }

  #read(bytes: number): string {
    const text = Buffer.alloc(bytes)
    return text.toString('latin1', 0, readSync(this.#file, text, 0, bytes, 0))
  }

  close(): void {
    closeSync(this.#file)
  }
}

/** What is wrong with the records on a guest's disk, if anything: each one that was said is there, or the next one of its sector. @param path a raw file */
export async function diskWrong(path: string, console: Console): Promise<string | undefined> {
  const last = await untilConsole(console, 0, (text) => recordsIn(text).at(-1), answerMsMax).catch(
    () => undefined,
  )
  if (last === undefined) return 'the guest says no records'
  return recordsWrong(readFileSync(path), last)
}

/** @param last that was said; the guest goes on meanwhile */
export function recordsWrong(disk: Buffer, last: number): string | undefined {
  for (let number = Math.max(1, last - sectors + 1); number <= last; number++) {
    const at = (number % sectors) * recordBytes
    const sector = disk.toString('latin1', at, at + recordBytes)
    if (![number, number + sectors].includes(Number(sector)))
      return `record ${number} of ${last} is not on the disk: "${sector.trim().slice(-20)}"`
  }
  return undefined
}

async function digestAt(step: number): Promise<string> {
  const { stdout } = await run(guestImage('victim'), [`until=${step}`, ...victimArguments])
  return /digest=([0-9a-f]+)/.exec(stdout)?.[1] ?? stdout
}

/** What is wrong with the victim, if anything. */
export async function victimWrong(console: Console): Promise<string | undefined> {
  const whole = await askVictim(console).catch((error: Error) => error)
  const text = readConsole(console)
  if (whole !== true) return victimDamage(text) ?? (whole instanceof Error ? whole.message : 'damaged')
  const last = victimLines(text).at(-1)
  if (!last) return 'the victim says nothing'
  if ((await digestAt(last.step)) !== last.digest) return `another history at step ${last.step}`
  return undefined
}
