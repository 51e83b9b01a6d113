/**
 * The device state of a checkpoint as a change of the one before: of its tens of KiB a few hundred bytes change. Both sides keep
 * the last one, from the start of a connection.
 *
 * Payload: length of the state u32, then a delta (docs/delta-format.md) against what both sides hold, zeros at first.
 */
import { applySync } from '../delta/apply.ts'
import { captureSync, outBytesMin } from '../delta/capture.ts'
import { invariant, SubpageError } from '../errors.ts'
import { limits } from '../limits.ts'
import { pageBytes } from '../memory/page.ts'
import { PageRanges } from '../memory/page-ranges.ts'
import { Region } from '../memory/region.ts'

/** What is carried whatever it holds: the payload of one frame. Untouched memory costs nothing. */
const deviceStateBytesMax = limits.deviceStateBytes.value
const lengthBytes = 4
/** The longest record of a page, with its gap. */
const recordBytesMax = 4352

export class DeviceStateWriter {
  readonly #state = Region.anonymous(deviceStateBytesMax)
  readonly #known = Region.anonymous(deviceStateBytesMax)

  /** @throws SubpageError GUEST_UNPROTECTABLE when the state is larger than is carried */
  encode(state: Uint8Array): Uint8Array {
    if (state.length > deviceStateBytesMax)
      throw new SubpageError(
        'GUEST_UNPROTECTABLE',
        `the devices' state has ${state.length} bytes; ${deviceStateBytesMax} are carried at most`,
      )
    this.#state.write(0, state)
    const pages = Math.max(1, Math.ceil(state.length / pageBytes))
    const out = new Uint8Array(lengthBytes + outBytesMin + pages * recordBytesMax)
    const { bytes } = captureSync(this.#state, this.#known, PageRanges.of([[0, pages]]), {
      codec: 'masked',
      out: out.subarray(lengthBytes),
    })
    invariant(
      lengthBytes + bytes <= limits.framePayloadBytes.value,
      `a device state of ${state.length} bytes became a payload of ${lengthBytes + bytes}`,
    )
    new DataView(out.buffer).setUint32(0, state.length, true)
    return out.subarray(0, lengthBytes + bytes)
  }

  close(): void {
    this.#state.close()
    this.#known.close()
  }
}

export class DeviceStateReader {
  readonly #state = Region.anonymous(deviceStateBytesMax)

  /** @throws SubpageError FRAME_MALFORMED, DELTA_MALFORMED */
  decode(payload: Uint8Array): Uint8Array {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.length)
    const bytes = payload.length < lengthBytes ? deviceStateBytesMax + 1 : view.getUint32(0, true)
    if (bytes > deviceStateBytesMax)
      throw new SubpageError('FRAME_MALFORMED', 'a device state has no length, or is larger than is accepted')
    applySync(this.#state, payload.subarray(lengthBytes))
    return this.#state.read(0, bytes)
  }

  close(): void {
    this.#state.close()
  }
}
