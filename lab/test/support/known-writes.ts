/**
 * A guest whose every access to memory is known: no operating system, no firmware of others, only known-writes.S, which does what
 * it is told. It keeps account of what must have become of each page and line, independently of anything that tracks.
 */
import { execFileSync } from 'node:child_process'
import { createConnection, type Socket } from 'node:net'
import { join } from 'node:path'
import { pageBytes } from 'subpage/memory/page'
import { expect } from 'vitest'
import { type MachineTrack, startTiny, tinyRamBytes } from '../../../test/support/tiny-guest.ts'

const lineBytes = 64
/** Where a PC has no RAM: its RAM file goes on below. */
export const romStart = 0xa0000
export const romEnd = 0x100000

/** Lines of one page, bit n is line n. */
export type Lines = bigint

export class KnownWrites {
  /** What the guest's memory must hold now. */
  readonly memory = Buffer.alloc(tinyRamBytes)
  /** Stored to, by a processor. */
  readonly stored = new Map<number, Lines>()
  /** Whose bytes are others than before, each time. */
  readonly changed = new Map<number, Lines>()
  readonly byDevice = new Set<number>()
  readonly #socket: Socket
  #answered: ((answer: Buffer) => void) | undefined

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (answer: Buffer) => this.#answered?.(answer))
  }

  /** @param directory a state directory: recordings find the guest there */
  static async start(directory: string, name: string, track: MachineTrack = []) {
    const rom = join(directory, `${name}.rom`)
    execFileSync('cc', [
      ...['-m32', '-nostdlib', '-static', '-Wl,--build-id=none,-Ttext=0xffff0000,--oformat=binary'],
      ...['-o', rom, join(import.meta.dirname, 'known-writes.S')],
    ])
    const qemu = await startTiny(directory, name, ['-bios', rom], track)
    const socket = createConnection(qemu.files.console)
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    return { qemu, known: new KnownWrites(socket) }
  }

  async #tell(letter: string, address: number, stride = 0, count = 0, value = 0): Promise<string> {
    const command = Buffer.alloc(14)
    command.write(letter)
    for (const [i, number] of [address, stride, count].entries()) command.writeUInt32LE(number, 1 + 4 * i)
    command[13] = value
    const answered = new Promise<Buffer>((resolve) => {
      this.#answered = resolve
    })
    this.#socket.write(command)
    return (await answered).toString('latin1')
  }

  /** Stores `value` at `count` places. */
  async write(address: number, stride: number, count: number, value: number): Promise<void> {
    for (let i = 0; i < count; i++) this.#note(address + i * stride, Buffer.of(value), this.stored)
    await this.#tell('w', address, stride, count, value)
  }

  /** Stores what is there already. */
  async rewrite(address: number, stride: number, count: number): Promise<void> {
    for (let i = 0; i < count; i++) mark(this.stored, address + i * stride)
    await this.#tell('s', address, stride, count)
  }

  async read(address: number, stride: number, count: number): Promise<void> {
    await this.#tell('r', address, stride, count)
  }

  /** Runs code that lies there, which writes nothing. @returns the letter that it leaves (known-writes.S) */
  async execute(address: number, count: number): Promise<string> {
    return await this.#tell('x', address, 0, count)
  }

  async fill(address: number, bytes: number, value: number): Promise<void> {
    this.#note(address, Buffer.alloc(bytes, value), this.stored)
    await this.#tell('f', address, 0, bytes, value)
  }

  /** A device writes: fw_cfg's signature comes to `to`; the request, 16 bytes, lies at `request`, and its first word becomes 0. */
  async device(request: number, to: number): Promise<void> {
    const selectAndRead = 0x0a
    const bytes = Buffer.alloc(16)
    bytes.writeUInt32BE(selectAndRead, 0)
    bytes.writeUInt32BE(4, 4)
    bytes.writeBigUInt64BE(BigInt(to), 8)
    for (const [i, byte] of bytes.entries()) if (byte !== 0) await this.write(request + i, 0, 1, byte)
    this.#note(to, Buffer.from('QEMU'), undefined)
    this.#note(request, Buffer.alloc(4), undefined)
    await this.#tell('d', request)
    for (const address of [to, to + 3, request]) this.byDevice.add(Math.floor(address / pageBytes))
  }

  /** Account is kept from here on. */
  forget(): void {
    for (const kept of [this.stored, this.changed, this.byDevice]) kept.clear()
  }

  #note(address: number, bytes: Uint8Array, stored: Map<number, Lines> | undefined): void {
    expect(address + bytes.length <= romStart || address >= romEnd).toBe(true)
    for (const [i, byte] of bytes.entries()) {
      if (stored) mark(stored, address + i)
      if (this.memory[address + i] !== byte) mark(this.changed, address + i)
      this.memory[address + i] = byte
    }
  }

  close(): void {
    this.#socket.destroy()
  }
}

function mark(lines: Map<number, Lines>, address: number): void {
  const page = Math.floor(address / pageBytes)
  lines.set(page, (lines.get(page) ?? 0n) | (1n << BigInt(Math.floor((address % pageBytes) / lineBytes))))
}
