/** A small PNG writer: white pixels of varying opacity, which a page tints through a mask (PNG specification, 3rd edition). */
import { crc32, deflateSync } from 'node:zlib'

/** @param alpha a byte per pixel, by row from the top */
export function alphaPng(columns: number, rows: number, alpha: Uint8Array): Buffer {
  if (alpha.length !== columns * rows) throw new TypeError(`${alpha.length} pixels for ${columns} × ${rows}`)
  // Each row begins with the number of its filter: 0, none. Grey and alpha are a byte each.
  const stride = 1 + 2 * columns
  const raw = Buffer.alloc(stride * rows)
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      raw[row * stride + 1 + 2 * column] = 255
      raw[row * stride + 2 + 2 * column] = alpha[row * columns + column]!
    }
  const header = Buffer.alloc(13)
  header.writeUInt32BE(columns, 0)
  header.writeUInt32BE(rows, 4)
  header.set([8, 4, 0, 0, 0], 8)
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(raw, { level: 9 })),
    chunk('IEND', Buffer.alloc(0)),
  ])
}

function chunk(type: string, data: Buffer): Buffer {
  const named = Buffer.concat([Buffer.from(type, 'latin1'), data])
  const framed = Buffer.alloc(4 + named.length + 4)
  framed.writeUInt32BE(data.length, 0)
  named.copy(framed, 4)
  framed.writeUInt32BE(crc32(named), 4 + named.length)
  return framed
}
