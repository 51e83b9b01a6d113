/**
 * The lines of a QMP stream, checked: what QEMU sends is a line of JSON for each message, an object with fields of known
 * types. QEMU runs the guest, and a guest that has broken out of it writes here whatever it likes.
 */
import { printable, SubpageError } from '../errors.ts'
import { limits } from '../limits.ts'

export interface QmpMessage {
  QMP?: { version: { qemu: { major: number; minor: number; micro: number } } }
  id?: number
  return?: unknown
  error?: { class: string; desc: string }
  event?: string
  data?: Record<string, unknown>
  timestamp?: { seconds: number; microseconds: number }
}

const shownLength = 120

/** After an error it must not be used again. */
export class QmpLines {
  #pieces: string[] = []
  #length = 0
  /** What came after the last message that `push` returned. */
  rest = ''

  /**
   * The messages that are whole now.
   * @param most to return at once; what follows them is `rest`
   * @throws SubpageError QEMU_FAILED: no QMP, or a line that is longer than any answer
   */
  push(text: string, most = Number.POSITIVE_INFINITY): QmpMessage[] {
    const messages: QmpMessage[] = []
    let from = 0
    while (messages.length < most) {
      const end = text.indexOf('\n', from)
      const piece = text.slice(from, end < 0 ? text.length : end)
      this.#length += piece.length
      if (this.#length > limits.qmpLineBytes.value)
        throw broken(`a line of more than ${limits.qmpLineBytes.value} bytes`)
      this.#pieces.push(piece)
      if (end < 0) {
        from = text.length
        break
      }
      from = end + 1
      const line = this.#pieces.join('')
      this.#pieces = []
      this.#length = 0
      if (line.trim() !== '') messages.push(parse(line))
    }
    this.rest = text.slice(from)
    return messages
  }
}

function parse(line: string): QmpMessage {
  let message: unknown
  try {
    message = JSON.parse(line)
  } catch (cause) {
    throw Object.assign(broken(`a line that is no JSON: ${shown(line)}`), { cause })
  }
  if (!isMessage(message)) throw broken(`a line that is no message: ${shown(line)}`)
  return message
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** The fields that are looked at here have their types. By hand: it is done for each command of each checkpoint. */
function isMessage(value: unknown): value is QmpMessage {
  if (!isObject(value)) return false
  const { QMP, id, error, event, data, timestamp } = value
  if (QMP !== undefined && !isGreeting(QMP)) return false
  if (id !== undefined && typeof id !== 'number') return false
  if (error !== undefined && !(isObject(error) && typeof error.desc === 'string')) return false
  if (data !== undefined && !isObject(data)) return false
  if (event === undefined) return true
  return typeof event === 'string' && isObject(timestamp) && hasNumbers(timestamp, 'seconds', 'microseconds')
}

function isGreeting(value: unknown): boolean {
  if (!isObject(value) || !isObject(value.version) || !isObject(value.version.qemu)) return false
  return hasNumbers(value.version.qemu, 'major', 'minor', 'micro')
}

const hasNumbers = (value: Record<string, unknown>, ...names: string[]): boolean =>
  names.every((name) => typeof value[name] === 'number')

const shown = (line: string): string =>
  printable(line.length > shownLength ? `${line.slice(0, shownLength)}...` : line)

export function broken(what: string): SubpageError {
  return new SubpageError(
    'QEMU_FAILED',
    `QEMU sent ${what} on its control socket, which is no QMP: the connection is closed`,
  )
}
