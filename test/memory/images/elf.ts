/** ELF cores as their writers lay them out, and as nobody should: headers first, then the data of the segments. */

export interface Part {
  virtual: number
  physical?: number
  data: Uint8Array
  /** As many as `data` has when left out. */
  memoryBytes?: number
  /** What the header says, where it differs from what is there. */
  fileBytes?: number
  offset?: bigint
}

const countElsewhere = 0xffff

export function elfCore(parts: readonly Part[], change: (header: Buffer) => void = () => undefined): Buffer {
  const header = Buffer.alloc(64)
  header.write('\x7fELF', 'latin1')
  header.set([2, 1, 1], 4)
  header.writeUInt16LE(4, 16)
  header.writeBigUInt64LE(64n, 32)
  header.writeUInt16LE(56, 54)
  header.writeUInt16LE(Math.min(parts.length, countElsewhere), 56)
  const table = Buffer.alloc(56 * parts.length)
  // More segments than the header can count: the first section says how many.
  const section = Buffer.alloc(parts.length < countElsewhere ? 0 : 64)
  if (section.length > 0) {
    section.writeUInt32LE(parts.length, 44)
    header.writeBigUInt64LE(BigInt(64 + table.length), 40)
  }
  let offset = 64 + table.length + section.length
  for (const [i, part] of parts.entries()) {
    const { virtual, physical = 0, data, fileBytes = data.length, memoryBytes = data.length } = part
    table.writeUInt32LE(1, 56 * i)
    const fields = [part.offset ?? offset, virtual, physical, fileBytes, memoryBytes]
    for (const [field, value] of fields.entries())
      table.writeBigUInt64LE(BigInt(value), 56 * i + 8 + 8 * field)
    offset += data.length
  }
  change(header)
  return Buffer.concat([header, table, section, ...parts.map(({ data }) => data)])
}
