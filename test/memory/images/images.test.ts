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
import { openImage } from '../../../src/memory/images/memory-image.ts'
import { pageBytes } from '../../../src/memory/page.ts'
import { elfCore } from './elf.ts'

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

test('segments of a core are sorted by address and joined through; what it leaves out reads as zero', () => {
  writeFileSync(
    file('core'),
    elfCore([
      { virtual: 0x7000_0000_0000, data: pageOf(3), memoryBytes: 2 * pageBytes },
      {
        virtual: 0x400000,
        data: Buffer.concat([pageOf(1), pageOf(2)]),
        memoryBytes: 2 * pageBytes,
      },
      { virtual: 0x500000, data: new Uint8Array(0), memoryBytes: pageBytes },
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
      { virtual: 0, data: Buffer.concat([pageOf(4), pageOf(5)]), memoryBytes: 2 * pageBytes },
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
  const whole = elfCore([{ virtual: 0x1000, data: pageOf(1), memoryBytes: pageBytes }])
  writeFileSync(file('empty'), '')
  writeFileSync(file('odd'), 'hello')
  execFileSync('mkfifo', [file('pipe')])
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
  expect(() => openImage(folder)).toThrow(/is a directory, not a file/)
  expect(open('empty')).toThrow(/is empty/)
  expect(open('odd')).toThrow(/cut short: it has 5 bytes/)
  expect(open('pipe')).toThrow(/is a pipe, not a file/)
  expect(open('cut')).toThrow(/cut short/)
  expect(open('header')).toThrow(/ends within its header/)
  expect(open('table')).toThrow(/cut short within its program headers/)
  expect(open('32 bits')).toThrow(/64 bits/)
  expect(open('nothing')).toThrow(/holds no memory/)
  expect(() => openImage(process.execPath)).toThrow(/program or a library/)
  expect(readFileSync(file('odd'), 'utf8')).toBe('hello')
})

test('of a segment without bytes the offset says nothing', () => {
  writeFileSync(
    file('core'),
    elfCore([
      { virtual: 0x1000, data: pageOf(1) },
      { virtual: 0x9000, data: new Uint8Array(0), memoryBytes: pageBytes, offset: 2n ** 64n - 1n },
    ]),
  )
  const image = openImage(file('core'))
  expect(image.areas.map(({ address }) => address)).toEqual([0x1000, 0x9000])
  expect(image.held.pageCount).toBe(1)
  image.close()
})

test('segments that begin and end within pages are read to the byte', () => {
  const data = (length: number, value: number) => new Uint8Array(length).fill(value)
  writeFileSync(
    file('core'),
    elfCore([
      // From within a page to within the next but one; the page where it ends goes on in the next segment.
      { virtual: 0x1800, data: data(0x2000, 1) },
      { virtual: 0x3800, data: data(0x100, 2) },
      // Named again: what was named first counts, what goes past it counts too.
      { virtual: 0x3880, data: data(0x100, 3), memoryBytes: 0x200 },
      // All of its page is named, none of it held.
      { virtual: 0x8000, data: data(0, 0), memoryBytes: 0x10 },
      // Held by a segment within one that has no bytes.
      { virtual: 0x20000, data: data(0, 0), memoryBytes: 0x10000 },
      { virtual: 0x22000, data: data(0x1001, 4) },
    ]),
  )
  const memory = new Map([
    [0x1800, data(0x2000, 1)],
    [0x3800, data(0x100, 2)],
    [0x3900, data(0x80, 3)],
    [0x22000, data(0x1001, 4)],
  ])
  const image = openImage(file('core'))
  expect(image.areas).toEqual([
    { firstPage: 0, pageCount: 3, address: 0x1000 },
    { firstPage: 3, pageCount: 1, address: 0x8000 },
    { firstPage: 4, pageCount: 16, address: 0x20000 },
  ])
  const expected = new Uint8Array(image.pageCount * pageBytes)
  for (const [address, bytes] of memory) {
    const { firstPage, address: base } = image.areas.findLast((area) => area.address <= address)!
    expected.set(bytes, firstPage * pageBytes + address - base)
  }
  const read = new Uint8Array(expected.length).fill(0xee)
  image.read(0, read)
  expect(Buffer.compare(read, expected)).toBe(0)
  for (let page = 0; page < image.pageCount; page++) {
    image.read(page, read.subarray(0, pageBytes))
    expect(
      Buffer.compare(
        read.subarray(0, pageBytes),
        expected.subarray(page * pageBytes, (page + 1) * pageBytes),
      ),
      `page ${page}`,
    ).toBe(0)
  }
  expect([...image.held.pages()]).toEqual([0, 1, 2, 6, 7])
  // Each held page is in one extent, or put together.
  expect(image.partial).toEqual([0, 2, 7])
  expect(image.extents.map(({ bytes }) => bytes)).toEqual([pageBytes, pageBytes])
  image.close()
})

test('holes of a core that was copied sparsely are known', () => {
  const core = elfCore([
    { virtual: 0x10000, data: pageOf(0), memoryBytes: 1024 * pageBytes, fileBytes: 1024 * pageBytes },
  ])
  writeFileSync(file('core'), core)
  truncateSync(file('core'), core.length + 1023 * pageBytes)
  const fd = openSync(file('core'), 'r+')
  writeSync(fd, pageOf(1), 0, pageBytes, 64 + 56 + 1000 * pageBytes)
  closeSync(fd)
  const image = openImage(file('core'))
  expect(image.held.pageCount).toBe(1024)
  expect(image.data.pageCount).toBeLessThan(16)
  expect(image.data.has(1000)).toBe(true)
  image.close()
})

const lime = (first: bigint, data: Uint8Array, change: (header: Buffer) => void = () => undefined) => {
  const header = Buffer.alloc(32)
  header.write('EMiL', 'latin1')
  header.writeUInt32LE(1, 4)
  header.writeBigUInt64LE(first, 8)
  header.writeBigUInt64LE(first + BigInt(data.length) - 1n, 16)
  change(header)
  return Buffer.concat([header, data])
}

test('an image of LiME has its ranges where they were', () => {
  writeFileSync(
    file('lime'),
    Buffer.concat([lime(0x1000n, pageOf(1)), lime(0x10_0000n, Buffer.concat([pageOf(2), pageOf(3)]))]),
  )
  const image = openImage(file('lime'))
  expect(image).toMatchObject({
    kind: 'lime',
    areas: [
      { firstPage: 0, pageCount: 1, address: 0x1000 },
      { firstPage: 1, pageCount: 2, address: 0x10_0000 },
    ],
  })
  const read = new Uint8Array(3 * pageBytes)
  image.read(0, read)
  expect(Buffer.compare(read, Buffer.concat([1, 2, 3].map(pageOf)))).toBe(0)
  image.close()
  const refused: [Buffer, RegExp][] = [
    [Buffer.concat([lime(0n, pageOf(1)), Buffer.from('EMiL')]), /cut short within a header/],
    [lime(0n, pageOf(1)).subarray(0, 100), /a range lies behind its end/],
    [lime(0n, pageOf(1), (header) => header.writeUInt32LE(2, 4)), /its version is 2/],
    [Buffer.concat([lime(0n, pageOf(1)), Buffer.alloc(32)]), /no header is at byte 4128/],
    [lime(0n, pageOf(1), (header) => header.writeBigUInt64LE(0x9000n, 8)), /ends before it begins/],
    [
      lime(0n, pageOf(1), (header) => header.writeBigUInt64LE(2n ** 64n - 1n, 16)),
      /behind its end|before it begins/,
    ],
    [
      Buffer.concat([lime(0n, pageOf(1)), Buffer.from('AVML\x02\0\0\0'), Buffer.alloc(24)]),
      /AVML.*avml-convert/,
    ],
  ]
  for (const [bytes, words] of refused) {
    writeFileSync(file('lime'), bytes)
    expect(() => openImage(file('lime'))).toThrow(words)
  }
})

test('headers that point outside of the file are refused as such', () => {
  const far = 2n ** 64n - 1n
  const bent: [string, (header: Buffer) => void][] = [
    ['program headers', (header) => header.writeBigUInt64LE(far, 32)],
    ['the count elsewhere', (header) => header.writeUInt16LE(0xffff, 56)],
    [
      'the count far away',
      (header) => {
        header.writeUInt16LE(0xffff, 56)
        header.writeBigUInt64LE(far, 40)
      },
    ],
  ]
  for (const [name, change] of bent) {
    writeFileSync(file('core'), elfCore([{ virtual: 0x1000, data: pageOf(1) }], change))
    expect(() => openImage(file('core')), name).toThrow(/cannot be read as a core|cut short/)
  }
  writeFileSync(
    file('core'),
    elfCore([{ virtual: 0x1000, data: pageOf(1), memoryBytes: Number.MAX_SAFE_INTEGER }]),
  )
  expect(() => openImage(file('core'))).toThrow(/more than 16 TiB/)
  writeFileSync(file('core'), elfCore([{ virtual: 0x1000, data: pageOf(1), offset: 2n ** 63n }]))
  expect(() => openImage(file('core'))).toThrow(/cut short/)
})

test('very many segments are read once each', () => {
  const count = 70_000
  const parts = Array.from({ length: count }, (_, i) => ({
    virtual: (2 * i + 1) * pageBytes,
    data: pageOf(i).subarray(0, 16),
    memoryBytes: pageBytes,
  }))
  writeFileSync(file('core'), elfCore(parts))
  const image = openImage(file('core'))
  expect(image.areas.length).toBe(count)
  expect(image.held.pageCount).toBe(count)
  expect(image.partial.length).toBe(count)
  const page = new Uint8Array(pageBytes)
  for (const i of [0, 1, 255, 65_535, count - 1]) {
    image.read(i, page)
    expect([page[0], page[15], page[16]]).toEqual([i % 256, i % 256, 0])
  }
  image.close()
})
