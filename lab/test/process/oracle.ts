/** Starts oracle.c, tells it step by step what to do to its memory, and says which pages the holder found written after each. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { pageBytes } from 'subpage/memory/page'
import { expect } from 'vitest'
import { openProcess, type ProcessTarget } from '../../src/record/process/process-target.ts'
import type { TraceArea } from '../../src/trace.ts'
import { ended, memoryOf } from './victim.ts'

export type Kind =
  | 'private'
  | 'memfd'
  | 'anon'
  | 'sysv'
  | 'file'
  | 'huge'
  | 'heap'
  | 'droppable'
  | 'sealed'
  | 'sealedfile'
  | 'hugetlb'
  | 'hugeshared'
  | 'secret'
export type Doing =
  | 'write'
  | 'zeros'
  | 'read'
  | 'dontneed'
  | 'pageout'
  | 'guard'
  | 'forbid'
  | 'allow'
  | 'fixed'
  | 'unmap'
  | 'grow'
  | 'stacks'
  | 'sparse'
  | 'realloc'
  | 'resident'
  | 'fork'
  | 'uffd'
  | 'track'
  | 'missing'
  | 'minor'
  | 'untrack'
  | 'marked'
  | 'span'

export class Oracle {
  readonly pid: number
  readonly #ask: (line: string) => Promise<number>
  readonly #end: () => Promise<void>

  private constructor(pid: number, ask: (line: string) => Promise<number>, end: () => Promise<void>) {
    this.pid = pid
    this.#ask = ask
    this.#end = end
  }

  /** @param file what mappings of kind `file` are of */
  static async start(program: string, file: string): Promise<Oracle> {
    const child = spawn(program, [file], { stdio: ['pipe', 'pipe', 'inherit'] })
    const lines = createInterface({ input: child.stdout })
    const [pid] = (await once(lines, 'line')) as [string]
    const ask = async (line: string) => {
      const answer = once(lines, 'line')
      child.stdin.write(`${line}\n`)
      return Number(((await answer) as [string])[0])
    }
    const end = async () => {
      child.stdin.end()
      expect(await ended(child)).toBe(0)
    }
    return new Oracle(Number(pid), ask, end)
  }

  /** Returns the address. */
  map(slot: number, kind: Kind, pages: number): Promise<number> {
    return this.#ask(`${kind} ${slot} 0 ${pages}`)
  }

  run(doing: Doing, slot: number, first: number, count: number): Promise<number> {
    return this.#ask(`${doing} ${slot} ${first} ${count}`)
  }

  /** A field of /proc/PID/status in KiB. */
  status(field: 'VmPTE' | 'VmRSS'): number {
    const text = readFileSync(`/proc/${this.pid}/status`, 'utf8')
    return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)![1])
  }

  end(): Promise<void> {
    return this.#end()
  }
}

/** Of memory that has no number: it was never seen to hold anything. */
const noBytes = Buffer.alloc(pageBytes)

/** A process under the holder, epoch by epoch. */
export class Epochs {
  readonly #target: ProcessTarget
  readonly #areas: TraceArea[] = []
  #dirty: number[] = []
  /** All that was said so far. */
  readonly notes: string[] = []

  private constructor(target: ProcessTarget) {
    this.#target = target
  }

  /** What the process holds already is the first epoch. */
  static async of(pid: number, choice: 'userfault' | 'compare' = 'userfault'): Promise<Epochs> {
    const target = await openProcess({ pid }, choice)
    expect(target.tracker).toBe(choice)
    const epochs = new Epochs(target)
    epochs.#take()
    return epochs
  }

  /** Ends an epoch. */
  async next(): Promise<void> {
    await expect.poll(async () => (await this.#target.hold(() => true)) !== undefined).toBe(true)
    this.#take()
  }

  #take(): void {
    const { dirty, newAreas, newNotes } = this.#target.harvest()
    this.#areas.push(...newAreas)
    this.notes.push(...(newNotes ?? []))
    this.#dirty = [...dirty.pages()]
  }

  /** Which of the pages from `address` on were found written in the last epoch, counted from there. */
  written(address: number, pages: number): number[] {
    const found: number[] = []
    for (const page of this.#dirty) {
      const { area } = this.#at(page)
      const at = (area.address + (page - area.firstPage) * pageBytes - address) / pageBytes
      if (at >= 0 && at < pages) found.push(at)
    }
    return found.sort((a, b) => a - b)
  }

  /** Whether each page that was found written last is in our copy as it is in the process. */
  copied(address: number, pages: number): boolean {
    for (const page of this.#dirty) {
      const { area } = this.#at(page)
      const at = area.address + (page - area.firstPage) * pageBytes
      if (at < address || at >= address + pages * pageBytes) continue
      const ours = this.#target.ram.read(page * pageBytes, pageBytes)
      if (!memoryOf(this.#target.pid, at, 1).equals(ours)) return false
    }
    return true
  }

  /**
   * Of all private memory that belongs to no file, the pages that our copy has other than the process, by their addresses. The process
   * must not run meanwhile.
   */
  unlike(): string[] {
    const found: string[] = []
    const fd = openSync(`/proc/${this.#target.pid}/mem`, 'r')
    const theirs = Buffer.alloc(pageBytes)
    for (const line of readFileSync(`/proc/${this.#target.pid}/maps`, 'latin1').split('\n')) {
      const mapping = /^([0-9a-f]+)-([0-9a-f]+) (?:r.|.w).p \S+ \S+ 0 *(\S*)$/.exec(line)
      if (!mapping || /^\[v/.test(mapping[3]!)) continue
      const [start, end] = [Number.parseInt(mapping[1]!, 16), Number.parseInt(mapping[2]!, 16)]
      for (let at = start; at < end; at += pageBytes) {
        const area = this.#areas.findLast(
          ({ address, pageCount }) => address <= at && at < address + pageCount * pageBytes,
        )
        if (readSync(fd, theirs, 0, pageBytes, at) !== pageBytes) continue
        const ours = area
          ? this.#target.ram.read((area.firstPage + (at - area.address) / pageBytes) * pageBytes, pageBytes)
          : noBytes
        if (!theirs.equals(ours)) found.push(`${at.toString(16)} ${line}`)
      }
    }
    closeSync(fd)
    return found
  }

  #at(page: number): { area: TraceArea } {
    const area = this.#areas.findLast(
      ({ firstPage, pageCount }) => firstPage <= page && page < firstPage + pageCount,
    )
    if (!area) throw new Error(`page ${page} is in no area`)
    return { area }
  }

  close(): Promise<void> {
    return this.#target.close()
  }
}

export const range = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i)

/** Whether the file of a mapping can be asked what it holds: that takes CAP_CHECKPOINT_RESTORE, or root. */
export function seesFiles(): boolean {
  const [first] = readdirSync('/proc/self/map_files')
  try {
    closeSync(openSync(`/proc/self/map_files/${first}`, 'r'))
    return true
  } catch (error) {
    expect(error).toMatchObject({ code: 'EPERM' })
    return false
  }
}
