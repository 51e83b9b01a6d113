/**
 * Streams of frames, cut anywhere, and what their payloads say: hello, welcome, commit, device state, deltas, reduced deltas. A
 * payload is bent before it is sealed, so that it passes its checksum, or the stream is bent afterwards.
 */
import { applySync, checkDelta } from '../../src/delta/apply.ts'
import { captureSync, outBytesMin } from '../../src/delta/capture.ts'
import { codecNames } from '../../src/delta/codec.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'
import { DeviceStateReader, DeviceStateWriter } from '../../src/replication/device-state.ts'
import { encodeHeader, type Frame, FrameParser, frameType } from '../../src/replication/frame.ts'
import {
  decodeCommit,
  Ended,
  encodeCommit,
  Hello,
  Refusal,
  readJson,
  Welcome,
} from '../../src/replication/messages.ts'
import { bent, content, maybeBent, oneIn, pick, type SeededRandom, type Target } from './target.ts'

const pages = 8

function hello(random: SeededRandom): object {
  const word = () => content(random, random.integer(0, 40)).toString('latin1')
  return {
    protocol: 1,
    release: word(),
    guest: {
      id: '0f8fad5b-d9cb-469f-a165-70867728950e',
      name: 'web',
      ramBytes: pick(random, [4096, 4097, 2 ** 30, 2 ** 60]),
      hypervisor: { machine: word(), options: [word()] },
    },
    source: {
      host: 'alpha',
      claimant: word(),
      address: '127.0.0.1:1',
      bootId: word(),
      process: { pid: random.integer(0, 2 ** 23), startTime: word() },
    },
    generation: random.integer(0, 3),
    settings: { epochMs: 20, suspicionMs: 500, outputs: 'held', tracker: 'auto', codec: 'masked' },
  }
}

function delta(random: SeededRandom): Uint8Array {
  using ram = Region.anonymous(pages * 4096)
  using shadow = Region.anonymous(pages * 4096)
  for (let writes = random.integer(0, 40); writes > 0; writes--) {
    const bytes = content(random, random.integer(1, oneIn(random, 4) ? 4096 : 64))
    ram.write(random.integer(0, pages * 4096 - bytes.length), bytes)
  }
  const out = new Uint8Array(outBytesMin + pages * 4352)
  const { bytes } = captureSync(ram, shadow, PageRanges.all(pages), { codec: pick(random, codecNames), out })
  return out.subarray(0, bytes)
}

const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value))

function deviceState(random: SeededRandom): Uint8Array {
  const writer = new DeviceStateWriter()
  try {
    return Uint8Array.from(writer.encode(content(random, random.integer(0, 70_000))))
  } finally {
    writer.close()
  }
}

/** A payload as a sender makes it. */
function payload(random: SeededRandom, type: number): Uint8Array {
  switch (type) {
    case frameType.hello:
      return json(hello(random))
    case frameType.welcome:
      return json({ release: 'r', imagePages: random.integer(-1, 9), image: 'fresh', arbitrated: true })
    case frameType.refuse:
      return json({ code: 'NO_SPACE', message: 'm'.repeat(random.integer(0, 5000)) })
    case frameType.guestEnded:
      return json({ how: pick(random, ['died', 'stopped', 'else']), detail: '' })
    case frameType.commit:
      return encodeCommit({
        deltas: random.integer(0, 9),
        deltaBytes: 2 ** 40,
        consoleBytes: 3,
        digest: 7n,
        diskFrames: 0,
        suspended: oneIn(random, 2),
      })
    case frameType.device:
      return deviceState(random)
    case frameType.pages:
      return delta(random)
    default:
      return content(random, oneIn(random, 8) ? random.integer(0, 100_000) : random.integer(0, 64))
  }
}

function read({ type, payload: bytes }: Frame): void {
  switch (type) {
    case frameType.hello:
      readJson(Hello, bytes, 'the hello')
      break
    case frameType.welcome:
      readJson(Welcome, bytes, 'the welcome')
      break
    case frameType.refuse:
      readJson(Refusal, bytes, 'the refusal')
      break
    case frameType.guestEnded:
      readJson(Ended, bytes, 'the end')
      break
    case frameType.commit:
      decodeCommit(bytes)
      break
    case frameType.device: {
      const reader = new DeviceStateReader()
      try {
        reader.decode(bytes)
      } finally {
        reader.close()
      }
      break
    }
    case frameType.pages: {
      using image = Region.anonymous(pages * 4096)
      checkDelta(bytes, pages)
      applySync(image, bytes)
    }
  }
}

export const frames: Target = {
  name: 'frames',
  refusals: ['FRAME_MALFORMED', 'DELTA_MALFORMED'],
  once(random) {
    const types = Object.values(frameType)
    const pieces: Uint8Array[] = []
    for (let i = 0, count = random.integer(1, 6); i < count; i++) {
      const type = pick(random, types)
      const frame = {
        type,
        epoch: random.integer(0, 2 ** 31 - 1),
        payload: maybeBent(random, payload(random, type)),
      }
      pieces.push(encodeHeader(frame, i), frame.payload)
    }
    let stream: Buffer = Buffer.concat(pieces)
    if (oneIn(random, 3)) stream = bent(random, stream)
    const parser = new FrameParser()
    for (let at = 0; at < stream.length; ) {
      const end = at + (oneIn(random, 2) ? random.integer(1, 40) : random.integer(1, stream.length))
      for (const frame of parser.push(stream.subarray(at, end))) read(frame)
      at = end
    }
  },
}
