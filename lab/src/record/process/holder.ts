/**
 * The holder as seen from here: a program (native/holder) that watches one process for us, and the messages of its control
 * socket. It is a process of its own, so that the target goes on whatever happens to us.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { PageRanges } from 'subpage/memory/page-ranges'
import type { TrackerChoice } from 'subpage/tracking/tracker'
import { labProgram } from '../../package-root.ts'
import type { TraceArea } from '../../trace.ts'

const holderPath = labProgram('holder')

export type Watched = { pid: number } | Command

export interface Command {
  command: readonly string[]
  /** As in node:child_process; ours when left out. */
  cwd?: string
  env?: NodeJS.ProcessEnv
  /** Descriptors of standard input, output and error. What it prints goes to our standard error when left out. */
  stdio?: readonly [number, number, number]
  /** What we were started with, for the command to have it too; as we run now when left out. */
  startedWith?: { openFiles: string; blocked: string; ignored: string } | undefined
}

/** The `kind` of messages; native/holder/holder.h has the same. */
const kinds = { ready: 1, failed: 2, held: 3, busy: 4, ended: 5 } as const

export interface Ready {
  kind: 'ready'
  pid: number
  /** Descriptor in the holder. */
  mirror: number
  tracked: boolean
  /** Why it is not tracked. */
  errno: number
  step: string
  /** For how long it was held, if it ran before. */
  heldNs: bigint
}

export interface Failed {
  kind: 'failed'
  errno: number
  step: string
}

export interface HeldAnswer {
  kind: 'held'
  /** CLOCK_MONOTONIC: when the hold was asked for, when all threads stood, when they went on. */
  askedNs: bigint
  heldNs: bigint
  resumedNs: bigint
  /** When another program took the place of the former one since the last hold; 0n when none did. */
  executedNs: bigint
  /** When the target went on before this hold. */
  goneOnNs: bigint
  /** Processor time of all its threads so far. */
  cpuNs: bigint
  tracked: boolean
  /** Why it is not tracked, since another program runs. */
  errno: number
  step: string
  newAreas: TraceArea[]
  dirty: PageRanges
  /** Memory that is compared, not tracked, when it is first seen or has become twice as much. */
  left: Left[]
}

export interface Left {
  /** An errno, or one of `leftReasons`. */
  reason: number
  bytes: number
  mappings: number
  /** Of the first of them. */
  address: number
  name: string
}

/** native/holder/holder.h has the same. */
export const leftReasons = { huge: 10001, own: 10002, buffer: 10004 } as const

/** `status` as waitpid(2) gives it; undefined when nobody told. */
export type Answer =
  | Ready
  | Failed
  | HeldAnswer
  | { kind: 'busy' }
  | { kind: 'ended'; status: number | undefined }

export class Holder {
  readonly #child: ChildProcess
  readonly #socket: Socket
  #received: Buffer = Buffer.alloc(0)
  #waiting: ((answer: Answer | undefined) => void) | undefined
  #answers: Answer[] = []
  #closed = false
  #startError: Error | undefined

  constructor(watched: Watched, tracker: TrackerChoice, pages: number) {
    const what =
      'pid' in watched ? ['pid', String(watched.pid)] : ['run', ...asStarted(watched), ...watched.command]
    // What a command prints goes to our standard error: standard output is for our own data.
    const { stdio, cwd, env }: Partial<Command> = 'pid' in watched ? {} : watched
    this.#child = spawn(holderPath, [tracker, String(pages), ...what], {
      cwd,
      env,
      stdio: [...(stdio ?? (['inherit', 2, 'inherit'] as const)), 'pipe'],
    })
    this.#socket = this.#child.stdio[3] as Socket
    this.#socket.on('data', (bytes: Buffer) => this.#take(bytes))
    const end = () => {
      this.#closed = true
      this.#waiting?.(undefined)
    }
    this.#socket.on('close', end)
    // What a broken socket means is what its closing means.
    this.#socket.on('error', end)
    this.#child.on('error', (error) => {
      this.#startError = error
      end()
    })
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  /** `still`: the target stands until `goOn`; `brief`: it runs while what it wrote is copied, so that the copies are of no one moment. */
  hold(how: 'sharp' | 'still' | 'brief'): Promise<Answer | undefined> {
    if (!this.#closed) this.#socket.write({ sharp: 'h', still: 's', brief: 'p' }[how])
    return this.answer()
  }

  goOn(): void {
    if (!this.#closed) this.#socket.write('g')
  }

  /** The next answer; undefined when the holder has gone. */
  answer(): Promise<Answer | undefined> {
    const ready = this.#answers.shift()
    if (ready || this.#closed) return Promise.resolve(ready)
    return new Promise((resolve) => {
      this.#waiting = (answer) => {
        this.#waiting = undefined
        resolve(answer)
      }
    })
  }

  /** Once it has gone without a last word, or cannot be started. */
  async howEnded(): Promise<string> {
    if (this.#startError) return `cannot be started: ${this.#startError.message}`
    await this.#exited()
    const { exitCode, signalCode } = this.#child
    return signalCode === null ? `ended with status ${exitCode}` : `was killed by ${signalCode}`
  }

  async #exited(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null || this.#child.pid === undefined)
      return
    await once(this.#child, 'exit')
  }

  /** Lets the target go, and waits until it has been let go. */
  async close(): Promise<void> {
    this.#socket.destroy()
    await this.#exited()
  }

  #take(bytes: Buffer): void {
    this.#received = this.#received.length === 0 ? bytes : Buffer.concat([this.#received, bytes])
    while (this.#received.length >= 4) {
      const end = 4 + this.#received.readUInt32LE(0)
      if (this.#received.length < end) return
      const answer = parse(new Fields(this.#received.subarray(4, end)))
      this.#received = this.#received.subarray(end)
      if (this.#waiting) this.#waiting(answer)
      else this.#answers.push(answer)
    }
  }
}

const asStarted = ({ startedWith: as }: Command) => [as ? `${as.openFiles},${as.blocked},${as.ignored}` : '-']

class Fields {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  byte(): number {
    return this.#bytes[this.#at++]!
  }

  big(): bigint {
    const value = this.#bytes.readBigUInt64LE(this.#at)
    this.#at += 8
    return value
  }

  number(): number {
    return Number(this.big())
  }

  text(): string {
    return this.bytes(this.number()).toString()
  }

  bytes(length: number): Buffer {
    this.#at += length
    return this.#bytes.subarray(this.#at - length, this.#at)
  }
}

function parse(fields: Fields): Answer {
  switch (fields.byte()) {
    case kinds.ready: {
      const [pid, mirror, tracked, errno] = [
        fields.number(),
        fields.number(),
        fields.number(),
        fields.number(),
      ]
      const step = fields.text()
      return { kind: 'ready', pid, mirror, tracked: tracked !== 0, errno, step, heldNs: fields.big() }
    }
    case kinds.failed:
      return { kind: 'failed', errno: fields.number(), step: fields.text() }
    case kinds.held:
      return parseHeld(fields)
    case kinds.ended: {
      const known = fields.number() !== 0
      const status = fields.number()
      return { kind: 'ended', status: known ? status : undefined }
    }
    default:
      return { kind: 'busy' }
  }
}

function parseHeld(fields: Fields): HeldAnswer {
  const [askedNs, heldNs, resumedNs, executedNs] = [fields.big(), fields.big(), fields.big(), fields.big()]
  const [goneOnNs, cpuNs] = [fields.big(), fields.big()]
  const [tracked, errno] = [fields.number() !== 0, fields.number()]
  const step = fields.text()
  const newAreas = Array.from({ length: fields.number() }, () => {
    const [firstPage, pageCount, address] = [fields.number(), fields.number(), fields.number()]
    return { firstPage, pageCount, address, name: fields.text() }
  })
  const runs = fields.number()
  const pairs = new Uint32Array(2 * runs)
  // Copied: the message may lie anywhere, and is gone with the next one.
  new Uint8Array(pairs.buffer).set(fields.bytes(8 * runs))
  const left = Array.from({ length: fields.number() }, () => {
    const [reason, bytes, mappings, address] = [
      fields.number(),
      fields.number(),
      fields.number(),
      fields.number(),
    ]
    return { reason, bytes, mappings, address, name: fields.text() }
  })
  return {
    kind: 'held',
    askedNs,
    heldNs,
    resumedNs,
    executedNs,
    goneOnNs,
    cpuNs,
    tracked,
    errno,
    step,
    newAreas,
    dirty: PageRanges.fromPairs(pairs, runs),
    left,
  }
}
