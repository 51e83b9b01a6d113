/** The commands that are one call to the agent each, run.ts apart: remove, protect, unprotect, failover, verify. */

import { resolve } from 'node:path'
import { formatAddress, parseAddress } from '../../agent/address.ts'
import type { Verified } from '../../agent/status.ts'
import { differences } from '../../agent/verified.ts'
import { codecNames } from '../../delta/codec.ts'
import { exitStatus, SubpageError } from '../../errors.ts'
import { splitAtCommas } from '../../qemu/option-syntax.ts'
import { automaticPace, type Pace } from '../../replication/pace.ts'
import {
  type ProtectionSettings,
  protectionDefaults,
  timeLimits,
} from '../../replication/protection-settings.ts'
import { type Durability, durabilities } from '../../replication/sending.ts'
import { trackerChoices } from '../../tracking/tracker.ts'
import { agentFlags, agentOf } from '../agent-of.ts'
import { cancellable, stayingCopies } from '../cancellable.ts'
import { type Command, type Invocation, read, text } from '../command.ts'
import { guestName } from '../guest-name.ts'
import { readSending, sendingFlags } from '../sending-flags.ts'
import { formatBytes, formatTime, parseMs, within } from '../sizes.ts'
import { otherHost } from '../status-text.ts'
import { untilProtected } from '../until-protected.ts'
import { warnOfMissing } from '../warn-of-missing.ts'

/** Before the name of a domain of libvirt. */
const domainPrefix = /^libvirt:/

const nameOf = ({ args }: Invocation): string => guestName(String(args[0]))

export const removeCommand: Command = {
  name: 'remove',
  args: ['<name>'],
  completes: ['guest'],
  summary: 'end a guest, or forget one that has ended',
  help: 'Ends the QEMU process, if it runs, and removes its memory and logs. Its standby on another host is discarded too.',
  flags: agentFlags,
  async run(invocation) {
    const removed = await agentOf(invocation).remove(nameOf(invocation))
    const { removed: name, note } = removed
    invocation.output.data(removed, () => (note ? `${name} removed; ${note}` : `${name} removed`))
  },
}

export const protectCommand: Command = {
  name: 'protect',
  args: ['<name>'],
  completes: ['guest'],
  summary: 'keep a standby of a guest on another host',
  help: 'Example:\n  subpage protect web --to 192.0.2.11:7475\n  subpage protect web --to /run/subpage-b     # another agent of this machine\n  subpage protect libvirt:web --to 192.0.2.11:7475   # a domain of libvirt, which subpage libvirt prepare has prepared\n\nReturns when the first checkpoint is safe on the standby. An interruption (Ctrl-C) until then cancels it.',
  flags: [
    ...agentFlags,
    {
      form: '--to <address>',
      summary: 'agent of the other host, HOST or HOST:PORT; on this machine its state directory (required)',
    },
    {
      form: '--epoch <time>',
      summary: 'time between two checkpoints; auto: a checkpoint as soon as output waits',
      default: `${protectionDefaults.epochMs}ms`,
    },
    {
      form: '--cost <percent>',
      summary:
        "with --epoch auto, at most so much of the guest's time goes to pauses and faults, such as 10% (40%)",
    },
    {
      form: '--latency <time>',
      summary:
        'with --epoch auto, what the guest sends waits so long on average, such as 5ms, and epochs are as long as that allows; --cost counts more',
    },
    {
      form: '--outputs <outputs>',
      summary: 'what the guest sends waits for its checkpoint, or leaves at once',
      default: protectionDefaults.outputs,
      choices: ['held', 'free'],
    },
    {
      form: '--suspicion <time>',
      summary: 'silence after which a host is suspected',
      default: `${protectionDefaults.suspicionMs}ms`,
    },
    {
      form: '--tracker <tracker>',
      summary: 'how written pages are found',
      default: protectionDefaults.tracker,
      choices: [...trackerChoices],
    },
    {
      form: '--codec <codec>',
      summary: 'how changes are encoded',
      default: protectionDefaults.codec,
      choices: [...codecNames],
    },
    {
      form: '--disk-to <place>',
      summary:
        'NAME=PATH: the file or device of the other host for its copy of a disk, of the same size; without it a file is made there',
      many: true,
    },
    {
      form: '--durability <durability>',
      summary:
        'a checkpoint is safe when the standby has it in memory, or when its disks outlast a loss of power, too',
      default: protectionDefaults.durability,
      choices: [...durabilities],
    },
    { form: '--verify-every <time>', summary: 'compare guest and standby so often, such as 1h' },
    ...sendingFlags,
  ],
  async run(invocation) {
    if (invocation.flags.to === undefined)
      throw new SubpageError(
        'BAD_ARGUMENT',
        'protect needs --to HOST:PORT, the agent of the other host; on one machine, the state directory of the other agent',
      )
    const agent = agentOf(invocation)
    const given = String(invocation.args[0])
    const name = guestName(given.replace(domainPrefix, ''))
    const settings = {
      to: read(invocation, 'to', peerAt),
      ...paceOf(invocation),
      outputs: text(invocation, 'outputs') as ProtectionSettings['outputs'],
      suspicionMs: read(invocation, 'suspicion', timeWithin('suspicionMs')),
      tracker: text(invocation, 'tracker') as ProtectionSettings['tracker'],
      codec: text(invocation, 'codec') as ProtectionSettings['codec'],
      durability: text(invocation, 'durability') as Durability,
      ...(invocation.flags.diskTo !== undefined && { diskTo: read(invocation, 'diskTo', parsePlaces) }),
      ...(invocation.flags.verifyEvery !== undefined && {
        verifyEveryMs: read(invocation, 'verifyEvery', timeWithin('verifyEveryMs')),
      }),
      ...readSending(invocation),
    }
    if (domainPrefix.test(given)) await agent.adopt(name)
    const { output } = invocation
    const left = 'it runs on without a standby, and what the other host had of its memory is discarded'
    const status = await cancellable({ agent, name, output }, 'protect', left, async () => {
      await agent.protect(name, settings)
      return await untilProtected(agent, name)
    })
    warnOfMissing(invocation, status)
    invocation.output.data(
      status,
      () =>
        `${status.name} is protected to ${otherHost(status)} (tracker ${status.tracker}, codec ${status.codec}, epoch ${status.epochMs} ms)`,
    )
  },
}

export const unprotectCommand: Command = {
  name: 'unprotect',
  args: ['<name>'],
  completes: ['guest'],
  summary: 'give up the standby of a guest',
  help: 'The guest runs on; the copy of its memory on the other host is discarded, copies of its disks stay there.',
  flags: [
    ...agentFlags,
    {
      form: '--discard',
      summary: 'the copies of its disks that were made there go, too; files and devices that you named stay',
    },
  ],
  async run(invocation) {
    const discard = invocation.flags.discard === true
    const status = await agentOf(invocation).unprotect(nameOf(invocation), discard)
    const { copies } = status
    invocation.output.data(
      status,
      () => `${status.name} is no longer protected${stayingCopies(copies, 'stay')}`,
    )
  },
}

export const switchoverCommand: Command = {
  name: 'switchover',
  args: ['<name>'],
  completes: ['guest'],
  summary: 'move a protected guest to its standby, as planned',
  help: 'Ask the host where the guest runs. Nothing is repeated and nothing is lost; this host becomes the standby. An interruption (Ctrl-C) cancels it until the guest stands still for it.',
  flags: agentFlags,
  async run(invocation) {
    const [agent, name, { output }] = [agentOf(invocation), nameOf(invocation), invocation]
    const left = 'it runs on here, and is protected as before'
    const moved = await cancellable({ agent, name, output }, 'switchover', left, () => agent.switchover(name))
    output.data(moved, () => `${moved.switchedOver} runs on the other host now`)
  },
}

export const drainCommand: Command = {
  name: 'drain',
  args: [],
  summary: 'move all protected guests of this host to their standbys, before it is shut down',
  help: 'Guests that cannot be moved stay, and are named; the exit status is 3 then. packaging/subpage-drain.service runs this when a host is shut down.',
  flags: agentFlags,
  async run(invocation) {
    const agent = agentOf(invocation)
    const { guests } = await agent.status()
    const running = guests.filter(({ role, pid }) => role !== 'Standby' && pid !== null)
    const moves = running.map(async ({ name }) => {
      const stays = await agent.switchover(name).then(
        () => undefined,
        ({ message }: Error) => message,
      )
      return { name, stays: stays ?? null }
    })
    // They go to other hosts, side by side.
    const guestsMoved = await Promise.all(moves)
    invocation.output.data({ guests: guestsMoved }, () =>
      running.length === 0
        ? 'no guest runs here'
        : guestsMoved
            .map(({ name, stays }) => (stays === null ? `${name} moved` : `${name} stays: ${stays}`))
            .join('\n'),
    )
    return guestsMoved.every(({ stays }) => stays === null) ? exitStatus.ok : exitStatus.degraded
  },
}

export const failoverCommand: Command = {
  name: 'failover',
  args: ['<name>'],
  completes: ['guest'],
  summary: 'let the standby on this host take the guest over',
  help: 'Ask the host that holds the standby. The guest continues from the last checkpoint that was safe here.',
  flags: [
    ...agentFlags,
    {
      form: '--force',
      summary:
        'you know that the primary and its guest are gone: also without an arbiter, and from an outdated image',
    },
  ],
  async run(invocation) {
    const outcome = await agentOf(invocation).failover(nameOf(invocation), invocation.flags.force === true)
    invocation.output.data(outcome, () =>
      outcome.how === 'took-over'
        ? `${nameOf(invocation)} runs here now, from checkpoint ${outcome.committed.epoch}; takeover ${outcome.takeoverMs.toFixed(1)} ms`
        : `${nameOf(invocation)} was discarded: ${outcome.reason}`,
    )
  },
}

export const verifyCommand: Command = {
  name: 'verify',
  args: ['<name>'],
  completes: ['guest'],
  summary: "compare a guest's memory and disks with what its standby has",
  help: 'Pauses the guest while its memory is compared; its disks are compared while it runs. Exit status 1 when they differ. An interruption (Ctrl-C) cancels it.',
  flags: agentFlags,
  async run(invocation) {
    const [agent, name, { output }] = [agentOf(invocation), nameOf(invocation), invocation]
    const left = 'it is protected as before, and nothing is known of what was not compared'
    const result = await cancellable({ agent, name, output }, 'verify', left, () => agent.verify(name))
    output.data(result, () => verifiedText(result))
    return result.equal ? exitStatus.ok : exitStatus.failed
  },
}

function verifiedText(verified: Verified): string {
  const { difference, disks, epoch, pages } = verified
  const equal = difference ? [] : [`equal: all ${pages} pages, at checkpoint ${epoch}`]
  for (const { name, bytes, difference: at, missing } of disks)
    if (missing !== undefined) equal.push(`not compared: disk ${name}: ${missing}`)
    else if (at === undefined) equal.push(`equal: disk ${name}, all ${formatBytes(bytes)}`)
  return [...differences(verified), ...equal].join('\n')
}

/** Reads a time that the settings allow. */
function timeWithin(setting: keyof typeof timeLimits) {
  const { minimum, maximum } = timeLimits[setting]
  return within(parseMs, minimum, maximum, formatTime)
}

/** @throws SubpageError BAD_ARGUMENT */
function paceOf(invocation: Invocation): Pace {
  const pace = read(invocation, 'epoch', readPace)
  const { cost, latency, outputs } = invocation.flags
  for (const [flag, given] of Object.entries({ cost, latency }))
    if (given !== undefined && pace.pauseShareMax === undefined)
      throw new SubpageError('BAD_ARGUMENT', `--${flag} is for an epoch that follows it: add --epoch auto`)
  if (latency !== undefined && outputs === 'free')
    throw new SubpageError(
      'BAD_ARGUMENT',
      '--latency is for outputs that wait, and with --outputs free none does',
    )
  return {
    ...pace,
    ...(cost !== undefined && { pauseShareMax: read(invocation, 'cost', parseShare) }),
    ...(latency !== undefined && { latencyMs: read(invocation, 'latency', timeWithin('latencyMs')) }),
  }
}

function readPace(epoch: string): Pace {
  return epoch === 'auto' ? automaticPace : { epochMs: timeWithin('epochMs')(epoch) }
}

/** `10%` is 0.1. @throws SubpageError BAD_ARGUMENT */
function parseShare(percent: string): number {
  const value = Number(/^(\d+(?:\.\d+)?)%$/.exec(percent)?.[1])
  if (value >= 1 && value <= 100) return value / 100
  throw new SubpageError('BAD_ARGUMENT', `${percent} is not a share from 1% to 100%`)
}

/** `NAME=PATH,…` @throws SubpageError BAD_ARGUMENT */
function parsePlaces(text: string): Record<string, string> {
  return Object.fromEntries(
    splitAtCommas(text).map((word) => {
      const [, name, path] = /^([^=]+)=(\/.*)$/.exec(word) ?? []
      if (name !== undefined && path !== undefined) return [name, path]
      throw new SubpageError(
        'BAD_ARGUMENT',
        `"${word}" is not NAME=PATH, with the whole path on the other host`,
      )
    }),
  )
}

/** A state directory may be named as this shell sees it. @throws SubpageError BAD_ARGUMENT */
function peerAt(text: string): string {
  return formatAddress(parseAddress(/^\.{0,2}\//.test(text) ? resolve(text) : text))
}
