/**
 * A primary asks this host to keep a standby: may it, and what becomes of what is here under that name? A guest that runs
 * here gives way only to a newer generation that the arbiter has granted to another host.
 */
import { SubpageError } from '../errors.ts'
import type { Arbiter, Holder } from './arbiter.ts'
import { sameHost } from './claimant.ts'
import type { Connection } from './connection.ts'
import { type Frame, frameType } from './frame.ts'
import { HeldElsewhere } from './held-elsewhere.ts'
import { brokeProtocol, Hello, protocolVersion, readJson } from './messages.ts'
import type { Standby } from './standby.ts'

/** What is on this host under the guest's name. */
export type Present =
  | { kind: 'nothing' }
  | { kind: 'standby'; standby: Standby }
  | {
      kind: 'running'
      id: string
      /** This host. */
      claimant: string
      generation: number
      /** Who else holds the generation after that. */
      successor: () => Promise<Holder | undefined>
    }

/**
 * `fresh`: begin a new standby. `again`: the standby that waits for this primary. `renew`: it is of no use; discard it and begin
 * a new one. `supersede`: end the copy that runs here, then begin a new standby.
 */
export type Admission = 'fresh' | 'again' | 'renew' | 'supersede'

/**
 * Reads the hello of a new connection. The connection is the caller's: after an error, to refuse.
 * @throws SubpageError FRAME_MALFORMED, PEER_MISMATCH
 */
export async function greet(connection: Connection): Promise<{ frames: AsyncIterator<Frame>; hello: Hello }> {
  const frames = connection[Symbol.asyncIterator]()
  const { value, done } = await frames.next()
  if (done) throw brokeProtocol('the connection ended before a hello')
  if (value.type !== frameType.hello)
    throw brokeProtocol(`it begins with frame type ${value.type}, not with a hello`)
  const hello = readJson(Hello, value.payload, 'the hello')
  if (hello.protocol !== protocolVersion)
    throw new SubpageError(
      'PEER_MISMATCH',
      `the primary speaks protocol ${hello.protocol}, this host ${protocolVersion}: install the same release on both`,
    )
  return { frames, hello }
}

/**
 * Two hosts of one identity cannot be a pair: the arbiter would grant both what it grants to one. To be called before anything
 * else is found out about the primary.
 * @param claimant ours
 * @throws SubpageError PEER_MISMATCH
 */
export function refuseOurselves({ guest, source }: Hello, claimant: string, present: Present): void {
  if (!sameHost(source.claimant, claimant)) return
  const why =
    present.kind === 'running' && present.id === guest.id
      ? `the address leads to this host, ${claimant}, where ${guest.name} runs itself: give the address of another host`
      : `the primary and this host have the same identity, ${claimant}, for one state directory is a copy of the other: stop the agent of one, delete the file host-id in its state directory, and start it again`
  throw new SubpageError('PEER_MISMATCH', why)
}

/** @throws SubpageError GUEST_EXISTS, HELD_ELSEWHERE, ALREADY_PROTECTED, ARBITER_UNREACHABLE */
export async function admit(hello: Hello, present: Present): Promise<Admission> {
  const { name, id } = hello.guest
  switch (present.kind) {
    case 'nothing':
      return 'fresh'
    case 'standby': {
      const { standby } = present
      if (!standby.belongsTo(hello)) {
        const { claimant, generation } = standby.succession
        // It did not hear that it was given up, and the machine has been changed since.
        if (standby.hello.guest.id === id && hello.generation > generation && !standby.connected)
          return 'renew'
        if (standby.hello.guest.id === id && hello.generation < generation)
          throw new HeldElsewhere(`${name} is in generation ${generation} here`, {
            ...{ claimant, generation, runs: false },
          })
        throw new SubpageError('GUEST_EXISTS', `another ${name} has its standby here already`)
      }
      if (standby.state === 'Failed') return 'renew'
      if (standby.connected && standby.hello.source.claimant !== hello.source.claimant)
        throw new SubpageError('ALREADY_PROTECTED', `${name} has a primary connected already`)
      return 'again'
    }
    case 'running': {
      if (present.id !== id) throw new SubpageError('GUEST_EXISTS', `another ${name} runs here already`)
      if (hello.generation <= present.generation)
        throw new HeldElsewhere(
          `${name} runs here, in generation ${present.generation}; yours is ${hello.generation}`,
          { claimant: present.claimant, generation: present.generation, runs: true },
        )
      const holder = await present.successor()
      if (!holder)
        throw new SubpageError(
          'GUEST_EXISTS',
          `${name} runs here too, and no arbiter says that it must not: end one of the two by command`,
        )
      return 'supersede'
    }
  }
}

/**
 * Whether the primary's arbiter is ours: it left a mark there.
 * @param chosen ours was named by the operator, so it must be shared
 * @throws SubpageError ARBITER_NOT_SHARED, ARBITER_UNREACHABLE
 */
export async function sharesArbiter(hello: Hello, arbiter: Arbiter, chosen: boolean): Promise<boolean> {
  const shared = hello.mark !== undefined && (await arbiter.seesMark(hello.mark))
  if (!shared && chosen)
    throw new SubpageError(
      'ARBITER_NOT_SHARED',
      `this host asks ${arbiter.description}; the primary asks another one: give both the same --arbiter`,
    )
  return shared
}
