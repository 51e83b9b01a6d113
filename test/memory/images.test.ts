/** Memory images of every kind are read as they are, real ones of gcore and of files with holes; damaged ones are refused. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openImage } from '../../src/memory/images/memory-image.ts'
import { pageBytes } from '../../src/memory/page.ts'

let folder: string
const file = (name: string) => join(folder, name)
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-images-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

const pageOf = (value: number) => new Uint8Array(pageBytes).fill(value)

test('a raw image with holes names the pages that have data', () => {
  const fd = openSync(file('a'), 'w')
  ftruncateSync(fd, 64 * pageBytes)
  writeSync(fd, pageOf(7), 0, pageBytes, 9 * pageBytes)
  writeSync(fd, pageOf(8), 0, pageBytes, 10 * pageBytes)
  closeSync(fd)
  const image = openImage(file('a'))
  expect(image).toMatchObject({ kind: 'raw', pageCount: 64 })
  expect([...image.held]).toEqual([{ first: 9, count: 2 }])
  const read = new Uint8Array(3 * pageBytes)
  image.read(8, read)
  expect(Buffer.compare(read, Buffer.concat([pageOf(0), pageOf(7), pageOf(8)]))).toBe(0)
  image.close()
})

interface Part {
  virtual: number
  physical: number
  data: Uint8Array
  memoryBytes: number
}

/** A core as its writers lay it out: headers first, then the data of the segments. */
function elfCore(parts: Part[], change: (header: Buffer) => void = () => undefined): Buffer {
  const header = Buffer.alloc(64)
  header.write('\x7fELF', 'latin1')
  header.set([2, 1, 1], 4)
  header.writeUInt16LE(4, 16)
  header.writeBigUInt64LE(64n, 32)
  header.writeUInt16LE(56, 54)
  header.writeUInt16LE(parts.length, 56)
  let offset = 64 + 56 * parts.length
  const table = parts.map(({ virtual, physical, data, memoryBytes }) => {
    const entry = Buffer.alloc(56)
    entry.writeUInt32LE(1, 0)
    const fields = [offset, virtual, physical, data.length, memoryBytes]
    fields.forEach((value, i) => void entry.writeBigUInt64LE(BigInt(value), 8 + 8 * i))
    offset += data.length
    return entry
  })
  change(header)
  return Buffer.concat([header, ...table, ...parts.map(({ data }) => data)])
}

test('segments of a core are sorted by address and joined through; what it leaves out reads as zero', () => {
  writeFileSync(
    file('core'),
    elfCore([
      { virtual: 0x7000_0000_0000, physical: 0, data: pageOf(3), memoryBytes: 2 * pageBytes },
      {
        virtual: 0x400000,
        physical: 0,
        data: Buffer.concat([pageOf(1), pageOf(2)]),
        memoryBytes: 2 * pageBytes,
      },
      { virtual: 0x500000, physical: 0, data: new Uint8Array(0), memoryBytes: pageBytes },
    ]),
  )
  const image = openImage(file('core'))
  expect(image.areas).toEqual([
    { firstPage: 0, pageCount: 2, address: 0x400000 },
    { firstPage: 2, pageCount: 1, address: 0x500000 },
    { firstPage: 3, pageCount: 2, address: 0x7000_0000_0000 },
  ])
  expect([...image.held]).toEqual([
    { first: 0, count: 2 },
    { first: 3, count: 1 },
  ])
  const read = new Uint8Array(4 * pageBytes).fill(0xff)
  image.read(1, read)
  expect(Buffer.compare(read, Buffer.concat([2, 0, 3, 0].map(pageOf)))).toBe(0)
  image.close()
})

test('a dump of a machine is sorted by physical address, memory that it names twice counts once', () => {
  writeFileSync(
    file('core'),
    elfCore([
      { virtual: 0xffff_8000_0000_0000, physical: 0x1000, data: pageOf(5), memoryBytes: pageBytes },
      { virtual: 0, physical: 0, data: Buffer.concat([pageOf(4), pageOf(5)]), memoryBytes: 2 * pageBytes },
    ]),
  )
  const image = openImage(file('core'))
  expect(image.areas).toEqual([{ firstPage: 0, pageCount: 2, address: 0 }])
  image.close()
})

test('a real core of a real process holds its memory', async () => {
  // The text is made at run time: only memory has it.
  const child = spawn('sleep', ['60'], { env: { MARK: 'subpage-core-mark' } })
  try {
    await once(child, 'spawn')
    execFileSync('gcore', ['-o', file('core'), String(child.pid)], { stdio: 'ignore' })
  } finally {
    child.kill()
  }
  const image = openImage(`${file('core')}.${child.pid}`)
  expect(image.kind).toBe('elf')
  // The kernel's vsyscall page is in the core and no memory of the process.
  expect(image.areas.every(({ address }) => Number.isSafeInteger(address))).toBe(true)
  let found = false
  for (const { first, count } of image.held) {
    const bytes = Buffer.alloc(count * pageBytes)
    image.read(first, bytes)
    found ||= bytes.includes('MARK=subpage-core-mark')
  }
  expect(found).toBe(true)
  image.close()
})

test('what is no image, not whole or not readable is refused with words that help', () => {
  const open = (name: string) => () => openImage(file(name)).close()
  const whole = elfCore([{ virtual: 0x1000, physical: 0, data: pageOf(1), memoryBytes: pageBytes }])
  writeFileSync(file('empty'), '')
  writeFileSync(file('odd'), 'hello')
  writeFileSync(file('cut'), whole)
  truncateSync(file('cut'), whole.length - 1)
  writeFileSync(file('header'), whole.subarray(0, 40))
  writeFileSync(file('table'), whole.subarray(0, 80))
  writeFileSync(
    file('32 bits'),
    elfCore([], (header) => (header[4] = 1)),
  )
  writeFileSync(file('nothing'), elfCore([]))
  expect(open('none')).toThrow(/there is no file/)
  expect(() => openImage(folder)).toThrow(/not a file/)
  expect(open('empty')).toThrow(/0 bytes/)
  expect(open('odd')).toThrow(/5 bytes/)
  expect(open('cut')).toThrow(/cut short/)
  expect(open('header')).toThrow(/ends within its header/)
  expect(open('table')).toThrow(/cut short within its program headers/)
  expect(open('32 bits')).toThrow(/64 bits/)
  expect(open('nothing')).toThrow(/holds no memory/)
  expect(() => openImage(process.execPath)).toThrow(/program or a library/)
  expect(readFileSync(file('odd'), 'utf8')).toBe('hello')
})
