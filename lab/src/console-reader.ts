/** Reads a guest's console while something else goes on: whole lines, with the time at which each was seen. */
import { type Console, consoleLength, readConsole } from 'subpage/qemu/demo-guest'

export interface Line {
  atMs: number
  /** What the guest's processor had run until then, in nanoseconds; 0 when nobody asked. */
  processorNs: number
  text: string
}

export class ConsoleReader {
  readonly lines: Line[] = []
  readonly #console: Console
  readonly #processorNs: () => number
  #at: number

  constructor(console: Console, processorNs = () => 0) {
    this.#console = console
    this.#processorNs = processorNs
    this.#at = consoleLength(console)
  }

  read(): void {
    const text = readConsole(this.#console, this.#at)
    const end = text.lastIndexOf('\n') + 1
    if (end === 0) return
    this.#at += end
    const seen = { atMs: performance.now(), processorNs: this.#processorNs() }
    for (const line of text.slice(0, end - 1).split('\n')) this.lines.push({ ...seen, text: line })
  }
}

/** The first number that each line says in this way, of the lines that do. */
export function numbersIn(lines: readonly Line[], pattern: RegExp): number[] {
  return lines.flatMap(({ text }) => {
    const match = pattern.exec(text)
    return match ? [Number(match[1])] : []
  })
}
