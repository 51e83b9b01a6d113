/**
 * A guest whose memory is real but whose processor is a script. Its device state is a digest of its memory at the pause, so a takeover
 * proves by itself that image and device state belong together.
 */
import { hashBlocksSync } from '../../src/memory/hash.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'
import { type GuestDisks, noDisks } from '../../src/replication/disks.ts'
import type { Difference, GuestEnd } from '../../src/replication/guest.ts'
import type { EarlyHarvest, Tracker } from '../../src/tracking/tracker.ts'
import type { SeededRandom } from '../support/random.ts'
import { helloFor } from './pair.ts'

export function digestOf(region: Region): string {
  return Buffer.from(hashBlocksSync(region, PageRanges.all(region.pages), pageBytes)).toString('hex')
}

/** Things that a test lets go wrong, each called where its name says. */
interface Mishaps {
  pause?(): void
  harvest?(): void
  resume?(): { valid: boolean }
}

/** A guest of the Guest interface. Its memory changes only through `write` and only while it runs. */
export function otherThanZeros(memory: Region): PageRanges {
  const zeros = Buffer.alloc(pageBytes)
  const found: [number, number][] = []
  for (let page = 0; page < memory.pages; page++)
    if (!zeros.equals(memory.read(page * pageBytes, pageBytes))) found.push([page, 1])
  return PageRanges.of(found)
}

export class ScriptedGuest {
  readonly description
  readonly ram: Region
  readonly ended: Promise<GuestEnd>
  alive = true
  pauseMsMax = 2_000
  disks: GuestDisks = noDisks
  trackerName: Tracker['name'] = 'userfault'
  openTrackers = 0
  end: (end: GuestEnd) => void = () => undefined
  mishaps: Mishaps = {}
  paused = false
  /** By somebody else than the primary. */
  suspended = false
  /** What memory was at each pause, by `consoleBytes`, which counts the pauses. */
  readonly history = new Map<number, string>()
  consoleBytes = 0
  /** Pages that are elsewhere: zeros in `ram`, as in a RAM file whose pages were punched out. */
  readonly away = new Map<number, Uint8Array>()
  readonly #dirty = new Set<number>()
  readonly #random: SeededRandom

  constructor(pages: number, random: SeededRandom) {
    this.description = helloFor({ pages }).guest
    this.ram = Region.anonymous(pages * pageBytes)
    this.#random = random
    this.ended = new Promise((resolve) => {
      this.end = (end) => {
        this.alive = false
        resolve(end)
      }
    })
  }

  /** As a file of memory says: what was ever written. */
  dataPages = (): PageRanges => otherThanZeros(this.ram)

  /** Also used to write behind the tracker's back. */
  write(offset: number, data: Uint8Array, tracked = true): void {
    if (this.paused) throw new Error('a guest that stands still cannot write')
    const last = Math.floor((offset + data.length - 1) / pageBytes)
    for (let p = Math.floor(offset / pageBytes); p <= last; p++) this.bringBack(p)
    this.ram.write(offset, data)
    if (tracked) for (let p = Math.floor(offset / pageBytes); p <= last; p++) this.#dirty.add(p)
  }

  /** Its mark goes with it, which counts as written. */
  moveOut(page: number): void {
    this.away.set(page, Uint8Array.from(this.ram.read(page * pageBytes, pageBytes)))
    this.ram.write(page * pageBytes, new Uint8Array(pageBytes))
    this.#dirty.add(page)
  }

  /** It comes back armed. */
  bringBack(page: number): void {
    const content = this.away.get(page)
    if (!content) return
    this.ram.write(page * pageBytes, content)
    this.away.delete(page)
    this.#dirty.delete(page)
  }

  /** Of all that it has, wherever that is. */
  #digest(): string {
    for (const [page, content] of this.away) this.ram.write(page * pageBytes, content)
    const digest = digestOf(this.ram)
    for (const page of this.away.keys()) this.ram.write(page * pageBytes, new Uint8Array(pageBytes))
    return digest
  }

  /** A few writes as programs make them: words, lines, whole pages, zeros. */
  work(writes = 8): void {
    const { integer } = this.#random
    for (let n = 0; n < writes && !this.paused; n++) {
      const page = integer(0, this.ram.pages - 1)
      const kind = integer(0, 3)
      const length = [8, 64, pageBytes, pageBytes][kind]!
      const offset = page * pageBytes + (length < pageBytes ? integer(0, pageBytes / length - 1) * length : 0)
      this.write(offset, new Uint8Array(length).fill(kind === 3 ? 0 : integer(1, 255)))
    }
  }

  track(): Tracker {
    let everything = true
    const early: EarlyHarvest = {
      peek: () => (everything ? PageRanges.empty : PageRanges.of([...this.#dirty].map((page) => [page, 1]))),
      harvest: (within) => {
        const pages = [...this.#dirty].filter((page) => within.has(page))
        for (const page of pages) this.#dirty.delete(page)
        return PageRanges.of(pages.map((page) => [page, 1]))
      },
    }
    const compares = this.trackerName === 'compare'
    this.openTrackers++
    return {
      name: this.trackerName,
      fallback: undefined,
      early: compares ? undefined : early,
      harvest: (leave = PageRanges.empty) => {
        const all = everything || compares
        everything = true
        this.mishaps.harvest?.()
        everything = false
        const taken = [...this.#dirty].filter((page) => !leave.has(page))
        for (const page of taken) this.#dirty.delete(page)
        return all
          ? PageRanges.all(this.ram.pages)
          : PageRanges.of(taken.map((page) => [page, 1] as const)).union(leave)
      },
      close: () => void this.openTrackers--,
    }
  }

  async pause() {
    this.mishaps.pause?.()
    this.paused = true
    this.consoleBytes++
    const digest = this.#digest()
    this.history.set(this.consoleBytes, digest)
    const deviceState = Buffer.from(digest)
    return {
      suspended: this.suspended,
      lend: async (work: (held: bigint) => Promise<bigint>) => void (await work(0n)),
      deviceState: async () => deviceState,
      resume: async () => {
        this.paused = false
        const { valid } = this.mishaps.resume?.() ?? { valid: true }
        return { valid, pauseUs: 1, pausingUs: 1, flushUs: 0 }
      },
    }
  }

  supersede(detail: string): void {
    this.end({ how: 'superseded', detail })
  }

  async holdOutputs(): Promise<void> {}
  async freeOutputs(): Promise<void> {}
  async releaseOutputs(): Promise<void> {}
  outputPending(): undefined {}

  /** What its machine is made of, for misfit(). */
  parts: string[] = []

  /** What of it stays as it is. */
  lasting = false
  looks = 0

  misfit(_state: Uint8Array, parts: readonly string[]): Difference | undefined {
    const more = this.parts.filter((part) => !parts.includes(part))
    return more.length > 0 ? { what: `it has now: ${more}`, lasting: this.lasting } : undefined
  }

  async misfitNow(parts: readonly string[]): Promise<Difference | undefined> {
    this.looks++
    return this.misfit(new Uint8Array(), parts)
  }
}
