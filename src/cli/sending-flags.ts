/** The flags of `protect` that make it send less. Their names and values are those of the settings on the wire. */
import { grains } from '../delta/capture.ts'
import { reduceParts, shareBlockBytes } from '../delta/reduce.ts'
import { compressChoices } from '../delta/reduction-choice.ts'
import { SubpageError } from '../errors.ts'
import { protectionDefaults } from '../replication/protection-settings.ts'
import type { Sending } from '../replication/sending.ts'
import { speculateChoices } from '../replication/settled-pages.ts'
import type { Flag, Invocation } from './command.ts'
import { read, text } from './command.ts'
import { parseSize } from './sizes.ts'

export const sendingFlags: Flag[] = [
  {
    form: '--reduce <parts>',
    summary:
      'what is left out because the standby has it: dictionary, sharing, similar, several with commas; all, none',
    default: 'all',
  },
  {
    form: '--block <bytes>',
    summary: 'size of the blocks that sharing looks for',
    default: String(protectionDefaults.blockBytes),
    choices: shareBlockBytes.map(String),
  },
  {
    form: '--compress <method>',
    summary:
      'auto: whichever has the bytes there soonest, as measured, down to no reducing at all; off: reduce, do not compress',
    default: protectionDefaults.compress,
    choices: [...compressChoices],
  },
  {
    form: '--speculate <choice>',
    summary: 'send pages before the epoch ends when they are believed to stay as they are',
    default: protectionDefaults.speculate,
    choices: [...speculateChoices],
  },
  {
    form: '--shadow <kind>',
    summary:
      "what is remembered of the standby's memory: full, a copy of all of it; cache=SIZE, of what is written again and again; hash, hashes only",
    default: protectionDefaults.shadow,
  },
  {
    form: '--grain <bytes>',
    summary:
      'size of the blocks in which changes are told apart: 64, 128, 256, 1024 or 4096; with --shadow hash (256 if not given) and --codec line (64)',
  },
]

/** @throws SubpageError BAD_ARGUMENT */
export function readSending(invocation: Invocation): Sending {
  return {
    reduce: read(invocation, 'reduce', readParts),
    blockBytes: Number(text(invocation, 'block')) as NonNullable<Sending['blockBytes']>,
    compress: text(invocation, 'compress') as NonNullable<Sending['compress']>,
    speculate: text(invocation, 'speculate') as NonNullable<Sending['speculate']>,
    shadow: read(invocation, 'shadow', readShadow),
    ...(invocation.flags.grain !== undefined && { grainBytes: read(invocation, 'grain', readGrain) }),
  }
}

function readShadow(given: string): NonNullable<Sending['shadow']> {
  if (given === 'full' || given === 'hash') return given
  const size = /^cache=(.+)$/.exec(given)?.[1]
  if (size !== undefined) return { cacheBytes: parseSize(size) }
  throw new SubpageError('BAD_ARGUMENT', `--shadow takes full, cache=SIZE or hash, not "${given}"`)
}

function readGrain(given: string): NonNullable<Sending['grainBytes']> {
  const grain = grains.find((bytes) => String(bytes) === given)
  if (!grain)
    throw new SubpageError('BAD_ARGUMENT', `--grain takes one of ${grains.join(', ')}, not "${given}"`)
  return grain
}

function readParts(given: string): NonNullable<Sending['reduce']> {
  if (given === 'all') return [...reduceParts]
  if (given === 'none') return []
  return given.split(',').map((word) => {
    const part = reduceParts.find((name) => name === word.trim())
    if (!part)
      throw new SubpageError(
        'BAD_ARGUMENT',
        `--reduce takes ${reduceParts.join(', ')}, all or none, not "${word}"`,
      )
    return part
  })
}
