/**
 * The states of a standby: whether a primary is connected, what the image holds, whether a command asks the arbiter, and how it
 * ends. A checkpoint is whole, outdated (the guest has gone on without this standby), or there is none.
 */
import { type Reason, SubpageError } from '../errors.ts'
import type { StandbyState } from './standby-options.ts'
import { StateMachine, type Transitions } from './state-machine.ts'

/** Each without a command that asks, and with one. */
type Idle = 'new' | 'waiting' | 'seeding' | 'protected' | 'stale' | 'silent' | 'outdated'
type Deciding = `${'waiting' | 'seeding' | 'protected' | 'stale' | 'silent' | 'outdated'}, deciding`
type End = 'taking over' | 'runs here' | 'discarding' | 'discarded' | 'failed'
export type StandbyPhase = Idle | Deciding | End

export type StandbyChange =
  | 'connect'
  | 'seed'
  | 'commit'
  | 'torn'
  | 'lose'
  | 'outdate'
  | 'ask'
  | 'answer'
  | 'take over'
  | 'force'
  | 'unprotect'
  | 'discard'
  | 'run'
  | 'fail'
  | 'gone'

export const standbyChanges: Readonly<Record<StandbyChange, string>> = {
  connect: 'a primary has said hello, and is about to be welcomed',
  seed: 'a frame of seeding is about to change the image',
  commit: 'a checkpoint is whole, and about to be acknowledged',
  torn: 'applying a checkpoint has failed',
  lose: 'the connection has ended, and nothing is being written to the image',
  outdate: 'the guest has gone on without this standby',
  ask: 'a failover by command asks the arbiter',
  answer: 'that failover does not take place',
  'take over': 'nobody else goes on with the guest: it is taken over from the whole checkpoint',
  force: 'an operator says so: it is taken over, also from a checkpoint that is outdated',
  unprotect: 'the primary asks for the checkpoint to be given up',
  discard: 'the image is not needed any more',
  run: 'the guest runs here',
  fail: 'the guest could not be taken over, or the standby not be discarded',
  gone: 'the standby is discarded',
}

const end = { discard: 'discarding' } as const
const ends = { ...end, unprotect: 'discarding' } as const
/** What was asked before the end began may still be answered. */
const late = <S extends StandbyPhase>(state: S) => ({ torn: state, outdate: state })

export const standbyTransitions: Transitions<StandbyPhase, StandbyChange> = {
  new: { connect: 'seeding', outdate: 'new', ...end },
  waiting: { connect: 'seeding', outdate: 'waiting', ...end },
  seeding: { seed: 'seeding', commit: 'protected', lose: 'waiting', ...ends },
  protected: {
    ...{ seed: 'seeding', commit: 'protected', torn: 'seeding', lose: 'silent', ask: 'protected, deciding' },
    ...{ 'take over': 'taking over', ...ends },
  },
  stale: { seed: 'seeding', commit: 'protected', lose: 'outdated', ask: 'stale, deciding', ...ends },
  silent: {
    ...{ connect: 'protected', outdate: 'outdated', ask: 'silent, deciding', 'take over': 'taking over' },
    ...end,
  },
  outdated: { connect: 'stale', outdate: 'outdated', ask: 'outdated, deciding', ...end },

  'waiting, deciding': {
    ...{ connect: 'seeding, deciding', outdate: 'waiting, deciding', answer: 'waiting' },
    ...end,
  },
  'seeding, deciding': {
    ...{ commit: 'protected, deciding', lose: 'waiting, deciding', answer: 'seeding' },
    ...end,
  },
  'protected, deciding': {
    ...{ commit: 'protected, deciding', torn: 'seeding, deciding', lose: 'silent, deciding' },
    ...{ answer: 'protected', 'take over': 'taking over', force: 'taking over', ...end },
  },
  'stale, deciding': {
    ...{ commit: 'protected, deciding', lose: 'outdated, deciding', answer: 'stale', force: 'taking over' },
    ...end,
  },
  'silent, deciding': {
    ...{ connect: 'protected, deciding', outdate: 'outdated, deciding', answer: 'silent' },
    ...{ 'take over': 'taking over', force: 'taking over', ...end },
  },
  'outdated, deciding': {
    ...{ connect: 'stale, deciding', outdate: 'outdated, deciding', answer: 'outdated' },
    ...{ force: 'taking over', ...end },
  },

  'taking over': { run: 'runs here', fail: 'failed', ...late('taking over') },
  'runs here': late('runs here'),
  discarding: { gone: 'discarded', fail: 'failed', ...late('discarding') },
  discarded: late('discarded'),
  failed: { ...late('failed'), ...end },
}

/** What status shows. Undefined: as before, until the outcome is told. */
export const standbyLabels: Readonly<Record<StandbyPhase, StandbyState | undefined>> = {
  new: 'Seeding',
  waiting: 'Connecting',
  seeding: 'Seeding',
  protected: 'Protected',
  stale: 'Seeding',
  silent: 'Connecting',
  outdated: 'Connecting',
  'waiting, deciding': 'Connecting',
  'seeding, deciding': 'Seeding',
  'protected, deciding': 'Protected',
  'stale, deciding': 'Seeding',
  'silent, deciding': 'Connecting',
  'outdated, deciding': 'Connecting',
  'taking over': undefined,
  'runs here': undefined,
  discarding: undefined,
  discarded: undefined,
  failed: 'Failed',
}

const wholeIn: readonly StandbyPhase[] = ['protected', 'silent', 'protected, deciding', 'silent, deciding']
const outdatedIn: readonly StandbyPhase[] = ['stale', 'outdated', 'stale, deciding', 'outdated, deciding']
const endIn: readonly StandbyPhase[] = ['taking over', 'runs here', 'discarding', 'discarded', 'failed']

export class StandbyMachine extends StateMachine<StandbyPhase, StandbyChange> {
  readonly #tell: (label: StandbyState, why: Reason | undefined) => void
  /** What is shown of the state, and why it is so. */
  label: StandbyState = 'Seeding'
  why: Reason | undefined

  /** @param tell told of each change of what is shown */
  constructor(tell: (label: StandbyState, why: Reason | undefined) => void) {
    super(standbyTransitions, 'new')
    this.#tell = tell
  }

  /** The image holds a checkpoint that may be taken over, or will once it has been applied. */
  get whole(): boolean {
    return wholeIn.includes(this.state)
  }

  /** The image holds a checkpoint that only a person may take over. */
  get outdated(): boolean {
    return outdatedIn.includes(this.state)
  }

  /** Its end was begun, well or not. */
  get ending(): boolean {
    return endIn.includes(this.state)
  }

  /** The checkpoint that a failover is about must last: until that is decided, and from then on. @throws SubpageError STANDBY_NOT_READY */
  assertUndecided(event: StandbyChange, guest: string): void {
    if (!this.allows(event))
      throw new SubpageError('STANDBY_NOT_READY', `a failover of ${guest} is being decided`)
  }

  /** @param why undefined: nothing is to be explained */
  change(event: StandbyChange, why: Reason | undefined): void {
    this.fire(event)
    this.#show(why)
  }

  /** Shows the state as it is now. Once the end was begun, only its result is shown. */
  explain(why: Reason | undefined): void {
    if (!this.ending) this.#show(why)
  }

  #show(why: Reason | undefined): void {
    const label = standbyLabels[this.state] ?? this.label
    if (this.label === label && this.why?.code === why?.code && this.why?.message === why?.message) return
    this.label = label
    this.why = why
    this.#tell(label, why)
  }
}
