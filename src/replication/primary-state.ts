/**
 * The states of a primary: whether a standby is connected, what it may hold, whether a command asks it to give that up, and how the
 * protection ends. What is shown, and whether the guest goes on alone, follows from the state.
 */
import type { Reason } from '../errors.ts'
import type { PrimaryState } from './primary-options.ts'
import { StateMachine, type Transitions } from './state-machine.ts'

type Apart = 'alone' | 'unconfirmed' | 'silent' | 'unanswered' | 'misfit' | 'misfit, unconfirmed'
type Connected =
  | 'seeding'
  | 'seeding, unconfirmed'
  | 'seeding, whole'
  | 'seeded'
  | 'seeded, whole'
  | 'protected'
  | 'lagging'
  | 'handing over'
/** Each without a command that ends the protection, and with one. */
type Live = Apart | Connected | 'leaving' | 'leaving, alone'
type End = 'dismissed' | 'guest ended' | 'over' | 'failed'
type Dismissing = `${Live}, dismissing`
export type PrimaryPhase = Live | Dismissing | End

export type PrimaryChange =
  | 'connect'
  | 'forget'
  | 'seeded'
  | 'commit'
  | 'commit late'
  | 'lag'
  | 'fall behind'
  | 'hand over'
  | 'lose'
  | 'go alone'
  | 'suspect'
  | 'differ'
  | 'fit'
  | 'dismiss'
  | 'keep'
  | 'dismissed'
  | 'leave'
  | 'guest ended'
  | 'over'
  | 'fail'

export const primaryChanges: Readonly<Record<PrimaryChange, string>> = {
  connect: 'a standby has agreed, and is about to be seeded',
  forget: 'the standby has the first of what it is seeded with, so no checkpoint any more',
  seeded: 'the standby is seeded: from the next commit on it can take over',
  commit: 'the standby holds a whole checkpoint, and has said so',
  'commit late': 'the same, but it took too long',
  lag: "the standby's newest checkpoint is getting old",
  'fall behind': 'more pages are behind than a pause can take up: they are seeded',
  'hand over': 'a switchover: the guest stands still for its last checkpoint here',
  lose: 'the connection has ended, and nothing is being sent over it',
  'go alone': 'it is decided that the guest goes on here, without the standby',
  suspect: 'the arbiter says that a newer generation is held elsewhere',
  differ: 'the guest has other devices than its standby, which could not take it over',
  fit: 'they are the same again',
  dismiss: 'a command ends the protection: a standby is asked to give up what it has',
  keep: 'that is not so: the protection goes on',
  dismissed: 'nobody can take the guest over any more, and it goes on here',
  leave: 'the supervisor ends, and the next one goes on with the protection',
  'guest ended': 'the guest does not run here any more',
  over: 'it has let go of the guest',
  fail: 'it cannot go on, and what the guest sends may be held back',
}

const end = { leave: 'leaving', 'guest ended': 'guest ended', fail: 'failed' } as const
/** Without a standby that may hold a checkpoint. */
const endAlone = { ...end, leave: 'leaving, alone' } as const
/** What was under way when the end began still happens. */
const late = <S extends PrimaryPhase>(state: S) => ({
  ...{ forget: state, commit: state, 'commit late': state, 'hand over': state, 'go alone': state },
})

type LiveRow = { readonly [event in PrimaryChange]?: Live | End }
const live: { readonly [state in Live]: LiveRow } = {
  alone: {
    ...{ connect: 'seeding', 'go alone': 'alone', suspect: 'unconfirmed', differ: 'misfit', ...endAlone },
  },
  unconfirmed: {
    ...{ connect: 'seeding, unconfirmed', 'go alone': 'alone', suspect: 'unconfirmed' },
    ...{ differ: 'misfit, unconfirmed', ...end },
  },
  silent: { connect: 'seeding, whole', 'go alone': 'alone', suspect: 'silent', ...end },
  unanswered: { connect: 'seeding, whole', 'go alone': 'alone', suspect: 'unanswered', ...end },

  misfit: { differ: 'misfit', fit: 'alone', suspect: 'misfit, unconfirmed', ...endAlone },
  'misfit, unconfirmed': {
    ...{ differ: 'misfit, unconfirmed', fit: 'unconfirmed', suspect: 'misfit, unconfirmed', ...end },
  },

  seeding: { seeded: 'seeded', lose: 'alone', suspect: 'seeding, unconfirmed', ...endAlone },
  'seeding, unconfirmed': {
    ...{ forget: 'seeding', seeded: 'seeded', lose: 'unconfirmed', suspect: 'seeding, unconfirmed', ...end },
  },
  'seeding, whole': {
    ...{ forget: 'seeding', seeded: 'seeded, whole', lose: 'silent', suspect: 'seeding, whole', ...end },
  },
  seeded: {
    ...{ commit: 'protected', 'commit late': 'lagging', 'fall behind': 'seeding, unconfirmed' },
    ...{ lose: 'unconfirmed', suspect: 'seeded', ...end },
  },
  'seeded, whole': {
    ...{ commit: 'protected', 'commit late': 'lagging', 'fall behind': 'seeding, whole' },
    ...{ lose: 'silent', suspect: 'seeded, whole', ...end },
  },
  protected: {
    ...{ commit: 'protected', 'commit late': 'lagging', lag: 'lagging', 'fall behind': 'seeding, whole' },
    ...{ 'hand over': 'handing over', lose: 'silent', suspect: 'protected', ...end },
  },
  lagging: {
    ...{ commit: 'protected', 'commit late': 'lagging', 'fall behind': 'seeding, whole' },
    ...{ 'hand over': 'handing over', lose: 'silent', suspect: 'lagging', ...end },
  },
  'handing over': { lose: 'unanswered', suspect: 'handing over', ...end },

  leaving: {
    ...{ ...late('leaving'), forget: 'leaving, alone', 'go alone': 'leaving, alone' },
    ...{ leave: 'leaving', 'guest ended': 'guest ended', over: 'over', fail: 'failed' },
  },
  'leaving, alone': {
    ...{ 'go alone': 'leaving, alone', leave: 'leaving, alone' },
    ...{ 'guest ended': 'guest ended', over: 'over', fail: 'failed' },
  },
}

const endIn: readonly PrimaryPhase[] = ['dismissed', 'guest ended', 'over', 'failed']
const isEnd = (state: Live | End): state is End => endIn.includes(state)

type Row = { readonly [event in PrimaryChange]?: PrimaryPhase }

/** A supervisor that ends takes no command; one that was given before may still be answered. */
const withCommand = (state: Live, row: LiveRow): Row =>
  state.startsWith('leaving') ? row : { ...row, dismiss: `${state}, dismissing` }

function whileDismissing(state: Live, row: LiveRow): Row {
  const changes = Object.entries(row).map(([event, to]) => [event, isEnd(to) ? to : `${to}, dismissing`])
  return { ...Object.fromEntries(changes), keep: state, dismissed: 'dismissed' }
}

/** The same rows, each without and with a command that ends the protection. */
function liveRows() {
  const rows = Object.entries(live) as [Live, LiveRow][]
  return Object.fromEntries([
    ...rows.map(([state, row]) => [state, withCommand(state, row)]),
    ...rows.map(([state, row]) => [`${state}, dismissing`, whileDismissing(state, row)]),
  ]) as { readonly [state in Live | Dismissing]: Row }
}

export const primaryTransitions: Transitions<PrimaryPhase, PrimaryChange> = {
  ...liveRows(),
  dismissed: {
    ...{
      ...late('dismissed'),
      leave: 'dismissed',
      'guest ended': 'guest ended',
      over: 'over',
      fail: 'failed',
    },
  },
  'guest ended': {
    ...{
      ...late('guest ended'),
      dismissed: 'guest ended',
      leave: 'guest ended',
      over: 'over',
      fail: 'failed',
    },
  },
  over: { dismissed: 'over', leave: 'over' },
  failed: { dismissed: 'failed', leave: 'failed' },
}

interface Meaning {
  /** What status shows. Undefined: as before. */
  label: PrimaryState | undefined
  /** A standby may hold a checkpoint: going on without it needs a decision. */
  exposed: boolean
  /** The guest goes on without a standby that could take over. Undefined: as before. */
  alone: boolean | undefined
  /** Over a connection a standby is served. */
  connected: boolean
}

const apart = { label: 'Connecting', connected: false } as const
const serving = { connected: true, exposed: true, alone: false } as const
const ended = { label: undefined, alone: undefined, connected: false } as const

const meanings: Readonly<Record<Live | End, Meaning>> = {
  alone: { ...apart, exposed: false, alone: true },
  unconfirmed: { ...apart, exposed: true, alone: true },
  silent: { ...apart, exposed: true, alone: false },
  unanswered: { ...apart, exposed: true, alone: false },
  misfit: { label: 'Failed', connected: false, exposed: false, alone: true },
  'misfit, unconfirmed': { label: 'Failed', connected: false, exposed: true, alone: true },
  seeding: { label: 'Seeding', connected: true, exposed: false, alone: true },
  'seeding, unconfirmed': { ...serving, label: 'Seeding', alone: true },
  'seeding, whole': { ...serving, label: 'Seeding' },
  seeded: { ...serving, label: 'Seeding', alone: true },
  'seeded, whole': { ...serving, label: 'Seeding' },
  protected: { ...serving, label: 'Protected' },
  lagging: { ...serving, label: 'Lagging' },
  'handing over': { ...serving, label: undefined },
  leaving: { ...ended, exposed: true },
  'leaving, alone': { ...ended, exposed: false },
  dismissed: { ...ended, exposed: false },
  'guest ended': { ...ended, exposed: true },
  over: { ...ended, exposed: false },
  failed: { ...ended, label: 'Failed', exposed: true },
}

const dismissing = ', dismissing'
const meaningOf = (state: PrimaryPhase) => meanings[state.replace(dismissing, '') as Live | End]

export const primaryLabels = Object.fromEntries(
  Object.keys(primaryTransitions).map((state) => [state, meaningOf(state as PrimaryPhase).label]),
) as Readonly<Record<PrimaryPhase, PrimaryState | undefined>>

const coveredIn: readonly PrimaryPhase[] = ['protected', 'lagging', 'handing over']

/** What of it has changed. */
interface Shown {
  state: boolean
  alone: boolean
}

export class PrimaryMachine extends StateMachine<PrimaryPhase, PrimaryChange> {
  readonly #stopping = new AbortController()
  readonly #shown: (what: Shown) => void
  /** What is shown of the state, and why it is so. */
  label: PrimaryState = 'Connecting'
  why: Reason | undefined
  alone: boolean

  /**
   * @param exposed a standby may hold a checkpoint from before
   * @param shown told after each change of what is shown
   */
  constructor(exposed: boolean, shown: (what: Shown) => void) {
    super(primaryTransitions, exposed ? 'silent' : 'alone')
    this.alone = !exposed
    this.#shown = shown
  }

  /** A standby may hold a checkpoint: going on without it needs a decision. */
  get exposed(): boolean {
    return meaningOf(this.state).exposed
  }

  /** A standby is being served. */
  get connected(): boolean {
    return meaningOf(this.state).connected
  }

  /** A standby that is connected could go on at once if the guest died, and nobody is about to tell it otherwise. */
  get covered(): boolean {
    return coveredIn.includes(this.state)
  }

  /** The guest has other devices than its standby. */
  get misfit(): boolean {
    return this.state.startsWith('misfit')
  }

  /** By command; nobody can take the guest over any more. */
  get dismissed(): boolean {
    return this.state === 'dismissed'
  }

  /** The protection ends here, well or not. */
  get ending(): boolean {
    return this.stopping.aborted
  }

  /** Aborts when the end begins. */
  get stopping(): AbortSignal {
    return this.#stopping.signal
  }

  override fire(event: PrimaryChange): void {
    super.fire(event)
    const { state } = this
    if (endIn.includes(state) || state.startsWith('leaving')) this.#stopping.abort()
  }

  /** @param why undefined: nothing is to be explained */
  change(event: PrimaryChange, why: Reason | undefined): void {
    this.fire(event)
    this.show(why)
  }

  /** Once the end was begun, only its failure is shown. */
  show(why: Reason | undefined): void {
    const { label = this.label, alone = this.alone } = meaningOf(this.state)
    if (this.ending && this.state !== 'failed') return
    const same = this.label === label && this.why?.code === why?.code && this.why?.message === why?.message
    if (same && this.alone === alone) return
    const what = { alone: this.alone !== alone, state: !same }
    Object.assign(this, { label, why, alone })
    this.#shown(what)
  }
}
