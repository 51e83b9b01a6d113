/**
 * Sending and keeping stay alike through whatever happens to a connection: frames that arrive and frames that do not, epochs
 * that fail in the middle, what was sent early for one of them, and a new connection after each. The image is always the last
 * committed memory, and a commit is only accepted when both dictionaries are the same. The image is one that lends its pages:
 * whatever is read of it, or written to it, without being borrowed shows.
 */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type ReducePart, reduceParts } from '../../src/delta/reduce.ts'
import { type ReductionMethod, reductionMethods } from '../../src/delta/reduction-choice.ts'
import { fullShadow } from '../../src/delta/shadow.ts'
import { compareRegionsSync } from '../../src/memory/hash.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'
import { DeltaSender } from '../../src/replication/delta-sender.ts'
import { DeltaWriter } from '../../src/replication/delta-writer.ts'
import { DeviceStateWriter } from '../../src/replication/device-state.ts'
import type { FrameType } from '../../src/replication/frame.ts'
import { ImageKeeper } from '../../src/replication/image-keeper.ts'
import type { Sending } from '../../src/replication/sending.ts'
import { StandbyMachine } from '../../src/replication/standby-state.ts'
import { LendingImage } from './lending-image.ts'

const pages = 32
const all = PageRanges.all(pages)
const lines = pages * (pageBytes / 64)

type Write = [kind: number, to: number, from: number]
interface Epoch {
  early: Write[]
  late: Write[]
  /** Frames of it that arrive before the connection is lost; -1: all do, and it is committed. */
  arriving: number
  method: ReductionMethod
}

const write: fc.Arbitrary<Write> = fc.tuple(
  fc.integer({ min: 0, max: 3 }),
  fc.integer({ min: 0, max: lines - 1 }),
  fc.integer({ min: 0, max: lines - 1 }),
)
const epoch: fc.Arbitrary<Epoch> = fc.record({
  early: fc.array(write, { maxLength: 4 }),
  late: fc.array(write, { maxLength: 8 }),
  arriving: fc.oneof({ weight: 3, arbitrary: fc.constant(-1) }, { weight: 1, arbitrary: fc.nat(2) }),
  method: fc.constantFrom(...reductionMethods),
})

/** A primary's sending side and a standby's keeping side, with a list of frames between them. */
/** Of a standby to which a primary has just connected. */
function connected(): StandbyMachine {
  const machine = new StandbyMachine(() => undefined)
  machine.fire('connect')
  return machine
}

class Course {
  readonly ram = Region.anonymous(pages * pageBytes)
  readonly image = new LendingImage(pages)
  readonly #shadow = fullShadow(pages)
  readonly #committed = Region.anonymous(pages * pageBytes)
  readonly #keeper = new ImageKeeper(this.image, () => undefined, connected())
  readonly #writer = new DeltaWriter(this.ram, this.#shadow, 'masked')
  readonly #parts: readonly ReducePart[]
  readonly #choice = { next: () => this.#now, learn: () => undefined }
  #now: ReductionMethod = 'off'
  #sender: DeltaSender | undefined
  #devices: DeviceStateWriter | undefined
  #frames: { type: FrameType; epoch: number; payload: Uint8Array }[] = []
  #epoch = 0
  #unsynced = all

  constructor(parts: readonly ReducePart[]) {
    this.#parts = parts
  }

  #connect(): void {
    this.#sender?.close()
    this.#devices?.close()
    this.#devices = new DeviceStateWriter()
    const send = async (type: FrameType, epoch = 0, payload: Uint8Array = new Uint8Array(0)) => {
      this.#frames.push({ type, epoch, payload: payload.slice() })
    }
    const sending: Sending = { reduce: [...this.#parts], compress: 'auto', blockBytes: 256 }
    this.#sender = new DeltaSender({ send }, pages, this.#shadow.copy, sending, { choice: this.#choice })
    this.#keeper.begin(true)
  }

  async run({ early, late, arriving, method }: Epoch): Promise<void> {
    this.#now = method
    if (!this.#sender) this.#connect()
    const sender = this.#sender!
    const number = ++this.#epoch
    const sentEarly = this.#unsynced.pageCount === 0 ? this.#write(early) : PageRanges.empty
    if (sentEarly.pageCount > 0)
      await sender.post(number, sentEarly, await this.#writer.capture(sentEarly, false))
    const dirty = this.#write(late)
    const whole = this.#unsynced
    const touched = whole.union(dirty)
    this.#unsynced = touched.union(sentEarly)
    const known = await this.#writer.capture(dirty.subtract(whole), false)
    await sender.post(number, touched, known, await this.#writer.capture(whole, true))
    const frames = this.#frames
    this.#frames = []
    for (const { type, epoch, payload } of arriving < 0 ? frames : frames.slice(0, arriving))
      await this.#keeper.hold(epoch, payload, type)
    if (arriving < 0) {
      this.#keeper.holdDevice(number, this.#devices!.encode(Uint8Array.of(number & 255)))
      const { total, digest } = sender
      const commit = {
        deltas: total.frames,
        deltaBytes: total.bytes,
        consoleBytes: 0,
        digest,
        diskFrames: 0,
        suspended: false,
      }
      await this.#keeper.commit(number, commit, () => Promise.resolve())
      this.#committed.write(0, this.ram.read(0, this.ram.bytes))
      this.#unsynced = PageRanges.empty
    } else this.#connect()
    expect(compareRegionsSync(this.image.content, this.#committed, all)).toBeUndefined()
    expect(this.image.lentPages).toBe(0)
  }

  close(): void {
    this.#sender?.close()
    this.#devices?.close()
    this.#keeper.close()
    for (const region of [this.ram, this.image, this.#shadow, this.#committed]) region.close()
  }

  /** Lines and pages copied, lines filled, lines of new content. @returns the pages written */
  #write(writes: Write[]): PageRanges {
    for (const [kind, to, from] of writes) {
      const length = kind === 0 ? pageBytes : 64
      const at = (line: number) => Math.floor((line * 64) / length) * length
      const content = this.ram.read(at(from), length)
      if (kind === 2) content.fill(from & 255)
      if (kind === 3) for (let i = 0; i < length; i++) content[i] = (from * 31 + i * to) & 255
      this.ram.write(at(to), content)
    }
    return PageRanges.of(writes.map(([, to]) => [Math.floor((to * 64) / pageBytes), 1]))
  }
}

test('both sides stay alike through failed epochs and new connections', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.subarray([...reduceParts]),
      fc.array(epoch, { minLength: 1, maxLength: 12 }),
      async (parts, epochs) => {
        const course = new Course(parts)
        try {
          for (const each of epochs) await course.run(each)
          await course.run({ early: [], late: [[3, 1, 1]], arriving: -1, method: 'off' })
        } finally {
          course.close()
        }
      },
    ),
    { numRuns: 60 },
  )
})
