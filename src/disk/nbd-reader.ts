/**
 * Reads an export of an NBD server, such as QEMU's, over a unix socket: as the protocol's document has it
 * (github.com/NetworkBlockDevice/nbd, doc/proto.md), fixed newstyle negotiation with NBD_OPT_GO, simple replies.
 */
import { createConnection, type Socket } from 'node:net'

const magic = { hello: 0x4e42444d41474943n, option: 0x49484156454f5054n, optionReply: 0x3e889045565a9n }
const requestMagic = 0x25609513
const replyMagic = 0x67446698
const optionGo = 7
const reply = { ack: 1, info: 3 }
const infoExport = 0
const flagFixedNewstyle = 1
const commandRead = 0
const commandDisconnect = 2
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

  /** @param name of the export @throws Error that says what the server did not do */
  static async open(path: string, name: string): Promise<NbdReader> {
    const socket = createConnection(path)
    // Heard of by whoever reads.
    socket.on('error', () => undefined)
    socket.setTimeout(silentMsMax, () => socket.destroy(new Error('the NBD server gives no answer')))
    const reader = new NbdReader(socket)
    try {
      await reader.#negotiate(name)
      return reader
    } catch (error) {
      reader.close()
      throw error
    }
  }

  /** @throws Error */
  async read(offset: number, length: number): Promise<Buffer> {
    const request = Buffer.alloc(28)
    request.writeUInt32BE(requestMagic, 0)
    request.writeUInt16BE(commandRead, 6)
    request.writeBigUInt64BE(++this.#cookie, 8)
    request.writeBigUInt64BE(BigInt(offset), 16)
    request.writeUInt32BE(length, 24)
    this.#socket.write(request)
    const head = await this.#bytes(16)
    if (head.readUInt32BE(0) !== replyMagic || head.readBigUInt64BE(8) !== this.#cookie)
      throw new Error('the NBD server broke the protocol')
    const errno = head.readUInt32BE(4)
    if (errno !== 0) throw new Error(`the NBD server cannot read (error ${errno})`)
    return await this.#bytes(length)
  }

  close(): void {
    const request = Buffer.alloc(28)
    request.writeUInt32BE(requestMagic, 0)
    request.writeUInt16BE(commandDisconnect, 6)
    if (this.bytes > 0) this.#socket.write(request)
    this.#socket.end()
  }

  async #negotiate(name: string): Promise<void> {
    const hello = await this.#bytes(18)
    const flags = hello.readUInt16BE(16)
    if (hello.readBigUInt64BE(0) !== magic.hello || hello.readBigUInt64BE(8) !== magic.option)
      throw new Error('this is no NBD server')
    if ((flags & flagFixedNewstyle) === 0) throw new Error('the NBD server is too old')
    const wanted = Buffer.from(name)
    const go = Buffer.alloc(4 + 16 + 4 + wanted.length + 2)
    go.writeUInt32BE(flagFixedNewstyle, 0)
    go.writeBigUInt64BE(magic.option, 4)
    go.writeUInt32BE(optionGo, 12)
    go.writeUInt32BE(4 + wanted.length + 2, 16)
    go.writeUInt32BE(wanted.length, 20)
    wanted.copy(go, 24)
    this.#socket.write(go)
    for (;;) {
      const head = await this.#bytes(20)
      const [kind, length] = [head.readUInt32BE(12), head.readUInt32BE(16)]
      if (head.readBigUInt64BE(0) !== magic.optionReply || length > infoBytesMax)
        throw new Error('the NBD server broke the protocol')
      const body = await this.#bytes(length)
      if (kind === reply.ack) break
      if (kind !== reply.info) throw new Error(`the NBD server refuses export ${name}: ${body.toString()}`)
      if (body.length === 12 && body.readUInt16BE(0) === infoExport)
        this.bytes = Number(body.readBigUInt64BE(2))
    }
    if (this.bytes === 0) throw new Error('the NBD server does not say how large the export is')
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
