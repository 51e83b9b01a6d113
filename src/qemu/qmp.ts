/**
 * QMP client over a unix socket: the only way subpage talks to QEMU.
 *
 * Several commands may be written at once; QEMU runs them in order, so a checkpoint costs one round trip
 * (`pipeline`). Events carry QEMU's own time stamps. When QEMU ends, every pending command fails with GUEST_DIED.
 * Specification: QEMU's docs/interop/qmp-spec.
 */
import { EventEmitter } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { SubpageError } from '../errors.ts'
import { broken, QmpLines, type QmpMessage } from './qmp-lines.ts'

/** Two monitors of one QEMU. */
export interface QmpSockets {
  qmp: string
  /**
   * Only listened to: a command written to a QEMU that is ending makes the socket fail, and what QEMU had said there last,
   * such as why it ends, is lost.
   */
  qmpEvents: string
}

export interface QmpCommand {
  execute: string
  arguments?: Record<string, unknown>
}

export interface QmpEvent {
  event: string
  data?: Record<string, unknown>
  timestamp: { seconds: number; microseconds: number }
}

interface Pending {
  command: string
  resolve: (value: unknown) => void
  reject: (error: Error) => void
}

/** A QEMU that has not answered for this long is stuck; a start on a loaded host may take seconds. */
const answerMsMax = 20_000

/** Events: `event` (QmpEvent) and `close` (once, when QEMU or the connection has ended). */
export class Qmp extends EventEmitter<{ event: [QmpEvent]; close: [] }> {
  readonly version: string
  readonly #socket: Socket
  readonly #pending = new Map<number, Pending>()
  #lastId = 0
  #answerCount = 0
  #lines = new QmpLines()
  #closed = false
  /** Why this side ended the connection: QEMU sent what no QEMU sends. */
  #broken: SubpageError | undefined
  #listener: Qmp | undefined
  readonly #lastEvents = new Map<string, QmpEvent>()

  private constructor(socket: Socket, version: string, rest: string) {
    super()
    this.#socket = socket
    this.version = version
    socket.on('data', (text: string) => this.#receive(text))
    socket.on('close', () => this.#close())
    this.#receive(rest)
  }

  /**
   * Connects and negotiates. Rejects with the socket's own error while QEMU does not listen yet.
   * @param where one monitor for commands and events, or one for each
   * @param limitMs Infinity: until it answers or ends
   * @throws SubpageError QEMU_FAILED when it gives no answer, GUEST_DIED when it ends meanwhile
   */
  static async connect(where: string | QmpSockets, limitMs = answerMsMax): Promise<Qmp> {
    if (typeof where === 'string') return await Qmp.#open(where, limitMs)
    const client = await Qmp.#open(where.qmp, limitMs)
    try {
      client.#listenTo(await Qmp.#open(where.qmpEvents, limitMs))
    } catch (error) {
      client.close()
      throw error
    }
    return client
  }

  static async #open(path: string, limitMs: number): Promise<Qmp> {
    const socket = createConnection(path)
    socket.setEncoding('utf8')
    let silent = false
    const giveUp = () => {
      silent = true
      socket.destroy()
    }
    const patience = Number.isFinite(limitMs) ? setTimeout(giveUp, limitMs) : undefined
    try {
      const { greeting, rest } = await readGreeting(socket)
      const v = greeting.QMP?.version.qemu
      const client = new Qmp(socket, v ? `${v.major}.${v.minor}.${v.micro}` : 'unknown', rest)
      // With out-of-band commands QEMU reads on while a command runs; it handles a byte at a time, some µs each (native/shim/read_ahead.c).
      await client.run('qmp_capabilities', { enable: ['oob'] })
      return client
    } catch (error) {
      socket.destroy()
      throw silent
        ? new SubpageError('QEMU_FAILED', `QEMU gives no answer on its control socket ${path}`)
        : error
    } finally {
      clearTimeout(patience)
    }
  }

  #listenTo(listener: Qmp): void {
    this.#listener = listener
    listener.on('event', (event) => this.emit('event', event))
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Commands that wait for their answer. */
  get pendingCount(): number {
    return this.#pending.size
  }

  /** Answers so far. */
  get answerCount(): number {
    return this.#answerCount
  }

  /** The last event of this name. What an answered command has caused is here, before those who listen are told. */
  last(event: string): QmpEvent | undefined {
    return this.#lastEvents.get(event)
  }

  /** Asks for an answer that costs nothing; whoever counts the answers sees it. */
  ask(): void {
    // It fails when QEMU has ended, which is noticed elsewhere.
    this.run('query-status').catch(() => undefined)
  }

  /** Runs one command and resolves to its `return` value. */
  run<T = unknown>(execute: string, args?: Record<string, unknown>): Promise<T> {
    return this.pipeline([args ? { execute, arguments: args } : { execute }])[0] as Promise<T>
  }

  /** Writes all commands at once; QEMU runs them in this order. One promise for each. */
  pipeline(commands: QmpCommand[]): Promise<unknown>[] {
    let text = ''
    const results = commands.map((command) => {
      const id = ++this.#lastId
      text += `${JSON.stringify({ ...command, id })}\n`
      return new Promise<unknown>((resolve, reject) => {
        if (this.#closed) reject(this.#broken ?? ended(command.execute))
        else this.#pending.set(id, { command: command.execute, resolve, reject })
      })
    })
    if (!this.#closed) this.#socket.write(text)
    return results
  }

  close(): void {
    this.#socket.destroy()
    this.#listener?.close()
  }

  /** What cannot be understood ends this connection; whatever else the process does goes on. */
  #receive(text: string): void {
    if (this.#broken) return
    let messages: QmpMessage[]
    try {
      messages = this.#lines.push(text)
    } catch (error) {
      this.#broken = error as SubpageError
      this.#socket.destroy()
      return
    }
    for (const message of messages) {
      if (message.event !== undefined) this.#heard(message as unknown as QmpEvent)
      else if (message.id !== undefined) this.#settle(message, message.id)
    }
  }

  #heard(event: QmpEvent): void {
    this.#lastEvents.set(event.event, event)
    // The listener hears the same.
    if (!this.#listener) this.emit('event', event)
  }

  #settle(message: QmpMessage, id: number): void {
    const pending = this.#pending.get(id)
    if (!pending) return
    this.#answerCount++
    this.#pending.delete(id)
    if (message.error)
      pending.reject(
        new SubpageError('QEMU_FAILED', `QEMU refused ${pending.command}: ${message.error.desc}`),
      )
    else pending.resolve(message.return)
  }

  #close(): void {
    if (this.#closed) return
    this.#closed = true
    for (const pending of this.#pending.values()) pending.reject(this.#broken ?? ended(pending.command))
    this.#pending.clear()
    // Its last words may still be on their way.
    if (this.#listener && !this.#listener.closed) this.#listener.once('close', () => this.emit('close'))
    else this.emit('close')
  }
}

function ended(what: string): SubpageError {
  return new SubpageError('GUEST_DIED', `QEMU ended before it answered ${what}`)
}

function readGreeting(socket: Socket): Promise<{ greeting: QmpMessage; rest: string }> {
  return new Promise((resolve, reject) => {
    const lines = new QmpLines()
    const onData = (chunk: string) => {
      try {
        let [greeting] = lines.push(chunk, 1)
        // Of a monitor that was used before: what happens while it is opened anew.
        while (greeting?.event !== undefined) [greeting] = lines.push(lines.rest, 1)
        if (greeting === undefined) return
        if (greeting.QMP === undefined) throw broken('something else than a greeting')
        quiet()
        resolve({ greeting, rest: lines.rest })
      } catch (error) {
        quiet()
        reject(error)
      }
    }
    const quiet = () => {
      socket.off('data', onData)
      socket.off('close', onClose)
      socket.off('error', reject)
      // Later errors come with `close`, which is what the client acts on.
      socket.on('error', () => socket.destroy())
    }
    const onClose = () => reject(new SubpageError('GUEST_DIED', 'QEMU closed its control socket at once'))
    socket.on('data', onData)
    socket.on('close', onClose)
    socket.on('error', reject)
  })
}
