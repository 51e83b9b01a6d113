/** Frames as QEMU's socket backends and filters carry them on a stream: the length in 4 bytes, big endian, then an Ethernet frame. */

const lengthBytes = 4

/** What a packet takes on the stream. */
export function framed(packet: Uint8Array): Buffer {
  const frame = Buffer.alloc(lengthBytes + packet.length)
  frame.writeUInt32BE(packet.length)
  frame.set(packet, lengthBytes)
  return frame
}

/** Takes a stream in pieces of any size, and gives whole packets. */
export class PacketReader {
  #rest: Buffer = Buffer.alloc(0)

  push(piece: Buffer): Buffer[] {
    const packets: Buffer[] = []
    let left = Buffer.concat([this.#rest, piece])
    while (left.length >= lengthBytes) {
      const end = lengthBytes + left.readUInt32BE()
      if (left.length < end) break
      packets.push(left.subarray(lengthBytes, end))
      left = left.subarray(end)
    }
    this.#rest = left
    return packets
  }
}
