/**
 * What goes over a connection between hosts before anything else, plain: whoever connects names the guest that it is about, and
 * waits for a byte. The agent that accepts it gives the connection to the guest's supervisor, which proves itself and asks for
 * proof (docs/protocol.md). The id of a guest is no secret, and proves nothing.
 *
 * 48 bytes: magic "SUBPAGE2" · id of the guest, 36 characters · 4 bytes zero. The answer: one byte, 6 (ACK of ASCII), or a
 * `refuse` frame.
 */
import type { Duplex } from 'node:stream'
import { SubpageError } from '../errors.ts'

const magic = 'SUBPAGE2'
const idPattern = /^[0-9a-f-]{36}$/
export const preambleBytes = 48
export const proceed = 6

export function encodePreamble(id: string): Uint8Array {
  const bytes = Buffer.alloc(preambleBytes)
  bytes.write(magic + id, 'latin1')
  return bytes
}

/** @returns the id of the guest. @throws SubpageError AUTH_REFUSED */
export function decodePreamble(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString('latin1')
  const id = text.slice(magic.length, magic.length + 36)
  if (!text.startsWith(magic) || !idPattern.test(id) || text.slice(magic.length + 36) !== '\0\0\0\0')
    throw new SubpageError(
      'AUTH_REFUSED',
      text.charCodeAt(0) === tlsRecord
        ? 'it speaks TLS at once: a subpage of an older release, or another program'
        : 'it does not say which guest it is about: a subpage of another release, or another program',
    )
  return id
}

/** First byte of a TLS record that carries a handshake (RFC 8446, 5.1). */
const tlsRecord = 0x16

/**
 * The first bytes of a stream; what follows stays in it. Fewer when it ends before, undefined when it ends without one.
 */
export function takeBytes(stream: Duplex, count: number): Promise<Buffer | undefined> {
  return new Promise((resolve, reject) => {
    let got = Buffer.alloc(0)
    const settle = (end: () => void) => {
      stream.off('data', onData).off('end', onEnd).off('close', onClose)
      end()
    }
    const onData = (chunk: Buffer) => {
      got = Buffer.concat([got, chunk])
      if (got.length < count) return
      stream.pause()
      settle(() => {
        if (got.length > count) stream.unshift(got.subarray(count))
        resolve(got.subarray(0, count))
      })
    }
    const onEnd = () => settle(() => resolve(got.length > 0 ? got : undefined))
    const onClose = () =>
      settle(() => (stream.errored instanceof SubpageError ? reject(stream.errored) : resolve(undefined)))
    stream.on('data', onData).on('end', onEnd).on('close', onClose)
    // It may have been paused before.
    stream.resume()
  })
}
