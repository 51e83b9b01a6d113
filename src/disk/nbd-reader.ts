/**
 * Reads an export of an NBD server, such as QEMU's, over a unix socket: as the protocol's document has it
 * (github.com/NetworkBlockDevice/nbd, doc/proto.md), fixed newstyle negotiation with NBD_OPT_GO, simple replies. Of QEMU's dirty bitmaps
 * (QEMU, docs/interop/nbd.txt) it asks by block status, which comes in structured replies.
 */
import { createConnection, type Socket } from 'node:net'

const magic = { hello: 0x4e42444d41474943n, option: 0x49484156454f5054n, optionReply: 0x3e889045565a9n }
const requestMagic = 0x25609513
const replyMagic = 0x67446698
const chunkMagic = 0x668e33ef
const option = { go: 7, structured: 8, setContext: 10 } as const
const reply = { ack: 1, info: 3, context: 4 }
const chunkStatus = 5
const [chunkDone, dirty] = [1, 1]
const infoExport = 0
const flagFixedNewstyle = 1
const commandRead = 0
const commandDisconnect = 2
const commandStatus = 7
/** Of one answer: QEMU gives less. */
const statusBytesMax = 2 ** 24
const statusAlign = 65_536
const statusLengthMax = 2 ** 32 - statusAlign
/** A server that says more of an export than this is none. */
const infoBytesMax = 4096
const silentMsMax = 10_000

export class NbdReader {
  readonly #socket: Socket
  /** Size of the export. */
  bytes = 0
  #cookie = 0n
  #waiting: Buffer[] = []
  #wake: () => void = () => undefined

  private constructor(socket: Socket) {
    this.#socket = socket.pause()
    socket.on('data', (bytes) => {
      this.#waiting.push(bytes)
      this.#wake()
    })
    socket.on('close', () => this.#wake())
  }

  /**
   * @param name of the export
   * @param bitmap of QEMU's, for `dirtyIn`; then nothing is read
   * @throws Error that says what the server did not do
   */
  static async open(path: string, name: string, bitmap?: string): Promise<NbdReader> {
    const socket = createConnection(path)
    // Heard of by whoever reads.
    socket.on('error', () => undefined)
    socket.setTimeout(silentMsMax, () => socket.destroy(new Error('the NBD server gives no answer')))
    const reader = new NbdReader(socket)
    try {
      await reader.#greet()
      if (bitmap !== undefined) await reader.#askFor(name, `qemu:dirty-bitmap:${bitmap}`)
      await reader.#go(name)
      return reader
    } catch (error) {
      reader.close()
      throw error
    }
  }

  /** @throws Error */
  async read(offset: number, length: number): Promise<Buffer> {
    this.#request(commandRead, offset, length)
    const head = await this.#bytes(16)
    if (head.readUInt32BE(0) !== replyMagic || head.readBigUInt64BE(8) !== this.#cookie)
      throw new Error('the NBD server broke the protocol')
    const errno = head.readUInt32BE(4)
    if (errno !== 0) throw new Error(`the NBD server cannot read (error ${errno})`)
    return await this.#bytes(length)
  }

  /** What the bitmap has marked, in order. @throws Error */
  async *dirtyRanges(): AsyncGenerator<{ offset: number; bytes: number }> {
    for (let offset = 0; offset < this.bytes; ) {
      const extents = await this.#status(offset, Math.min(this.bytes - offset, statusLengthMax))
      for (let at = 0; at < extents.length; at += 8) {
        const bytes = Math.min(extents.readUInt32BE(at), this.bytes - offset)
        if (bytes === 0) throw new Error('the NBD server broke the protocol')
        if ((extents.readUInt32BE(at + 4) & dirty) !== 0) yield { offset, bytes }
        offset += bytes
      }
    }
  }

  /** Lengths and flags, of the range or its beginning. */
  async #status(offset: number, length: number): Promise<Buffer> {
    this.#request(commandStatus, offset, length)
    const head = await this.#bytes(20)
    const bytes = head.readUInt32BE(16)
    const whole = (head.readUInt16BE(4) & chunkDone) !== 0 && head.readBigUInt64BE(8) === this.#cookie
    if (head.readUInt32BE(0) !== chunkMagic || !whole || bytes > statusBytesMax)
      throw new Error('the NBD server broke the protocol')
    const body = await this.#bytes(bytes)
    const kind = head.readUInt16BE(6)
    // Behind the number of the context.
    if (kind !== chunkStatus || bytes < 12 || (bytes - 4) % 8 !== 0)
      throw new Error(`the NBD server does not say what is dirty (answer ${kind})`)
    return body.subarray(4)
  }

  #request(command: number, offset: number, length: number): void {
    const request = Buffer.alloc(28)
    request.writeUInt32BE(requestMagic, 0)
    request.writeUInt16BE(command, 6)
    request.writeBigUInt64BE(++this.#cookie, 8)
    request.writeBigUInt64BE(BigInt(offset), 16)
    request.writeUInt32BE(length, 24)
    this.#socket.write(request)
  }

  close(): void {
    const request = Buffer.alloc(28)
    request.writeUInt32BE(requestMagic, 0)
    request.writeUInt16BE(commandDisconnect, 6)
    if (this.bytes > 0) this.#socket.write(request)
    this.#socket.end()
  }

  async #greet(): Promise<void> {
    const hello = await this.#bytes(18)
    const flags = hello.readUInt16BE(16)
    if (hello.readBigUInt64BE(0) !== magic.hello || hello.readBigUInt64BE(8) !== magic.option)
      throw new Error('this is no NBD server')
    if ((flags & flagFixedNewstyle) === 0) throw new Error('the NBD server is too old')
    const client = Buffer.alloc(4)
    client.writeUInt32BE(flagFixedNewstyle)
    this.#socket.write(client)
  }

  /** @throws Error: it has no such context */
  async #askFor(name: string, context: string): Promise<void> {
    this.#ask(option.structured, [])
    for await (const _ of this.#answers('structured replies'));
    this.#ask(option.setContext, [withLength(name), wordOf(1), withLength(context)])
    let found = false
    for await (const { kind } of this.#answers(context)) found ||= kind === reply.context
    if (!found) throw new Error(`the NBD server has no ${context}`)
  }

  async #go(name: string): Promise<void> {
    this.#ask(option.go, [withLength(name), Buffer.alloc(2)])
    for await (const { kind, body } of this.#answers(`export ${name}`)) {
      if (kind === reply.info && body.length === 12 && body.readUInt16BE(0) === infoExport)
        this.bytes = Number(body.readBigUInt64BE(2))
    }
    if (this.bytes === 0) throw new Error('the NBD server does not say how large the export is')
  }

  #ask(which: number, data: readonly Buffer[]): void {
    const head = Buffer.alloc(16)
    const body = Buffer.concat(data)
    head.writeBigUInt64BE(magic.option, 0)
    head.writeUInt32BE(which, 8)
    head.writeUInt32BE(body.length, 12)
    this.#socket.write(Buffer.concat([head, body]))
  }

  /** Until the last one. @throws Error */
  async *#answers(what: string): AsyncGenerator<{ kind: number; body: Buffer }> {
    for (;;) {
      const head = await this.#bytes(20)
      const [kind, length] = [head.readUInt32BE(12), head.readUInt32BE(16)]
      if (head.readBigUInt64BE(0) !== magic.optionReply || length > infoBytesMax)
        throw new Error('the NBD server broke the protocol')
      const body = await this.#bytes(length)
      if (kind === reply.ack) return
      if (kind >= 2 ** 31) throw new Error(`the NBD server refuses ${what}: ${body.toString()}`)
      yield { kind, body }
    }
  }

  /** Resolves with exactly so many. */
  async #bytes(count: number): Promise<Buffer> {
    while (this.#waitingBytes < count) {
      if (this.#socket.closed) throw this.#socket.errored ?? new Error('the NBD server closed the connection')
      // What nobody waits for stays in the kernel.
      this.#socket.resume()
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#socket.pause()
    }
    const all = Buffer.concat(this.#waiting)
    this.#waiting = [all.subarray(count)]
    return all.subarray(0, count)
  }

  get #waitingBytes(): number {
    return this.#waiting.reduce((sum, { length }) => sum + length, 0)
  }
}

function wordOf(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

const withLength = (text: string): Buffer =>
  Buffer.concat([wordOf(Buffer.byteLength(text)), Buffer.from(text)])
