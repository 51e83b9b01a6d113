/** One guest: what it is and how it is, its plots, disks and events. */
import { useState } from 'preact/hooks'
import type { HostEvent } from '../../src/agent/event-log.ts'
import type { Point } from '../../src/agent/point-ring.ts'
import type { GuestStatus } from '../../src/agent/status.ts'
import { errorTable } from '../../src/error-table.ts'
import type { ErrorCode } from '../../src/errors.ts'
import { Actions } from './actions.tsx'
import { Memory } from './memory.tsx'
import { OtherSide } from './other-side.tsx'
import { Plot, type Series } from './plot.tsx'
import type { Session } from './session.ts'
import { Timeline } from './timeline.tsx'
import { bytes, hostOf, number, rate, reasonOf, time, toneOf } from './words.ts'
import { WorkingSet } from './working-set.tsx'

interface ViewProps {
  guest: GuestStatus
  points: Point[]
  events: HostEvent[]
  session: Session
  close: () => void
}

const spans = { '2 min': 120_000, '15 min': 900_000, '1 hour': 3600_000 }

const plots: { title: string; format: (value: number) => string; series: Series[] }[] = [
  {
    title: 'Pause',
    format: time,
    series: [
      { column: 'pauseMs', label: 'mean', color: '--a' },
      { column: 'pauseMsMax', label: '99 % below', color: '--b' },
    ],
  },
  {
    title: 'Commit and lag',
    format: time,
    series: [
      { column: 'commitMs', label: 'commit', color: '--a' },
      { column: 'lagMs', label: 'lag', color: '--b' },
    ],
  },
  {
    title: 'Dirty pages',
    format: (value) => `${number(value)}/s`,
    series: [{ column: 'dirtyPages', label: 'pages', color: '--a' }],
  },
  {
    title: 'Bytes by technique',
    format: rate,
    series: [
      { column: 'changedBytes', label: 'changed lines', color: '--a' },
      { column: 'dictionaryBytes', label: 'dictionary', color: '--b' },
      { column: 'sharedBytes', label: 'shared', color: '--c' },
      { column: 'sentBytes', label: 'sent', color: '--d' },
    ],
  },
]
const diskPlot = {
  title: 'Disk writes to the standby',
  format: rate,
  series: [{ column: 'diskBytes', label: 'sent', color: '--a' }] satisfies Series[],
}

export function GuestView({ guest, points, events, session, close }: ViewProps) {
  const [span, setSpan] = useState<keyof typeof spans>('2 min')
  const own = events.filter((event) => event.guest === guest.name)
  const { name, role, state, seeding, operation, disks } = guest
  const protecting = role === 'Primary' || points.length > 0
  return (
    <article>
      <header class="guest">
        <button type="button" class="back" onClick={close}>
          ‹ All guests
        </button>
        <div class="who">
          <h2>{name}</h2>
          <span class={`badge ${toneOf(guest)}`}>
            {role} · {state}
          </span>
        </div>
        <p class="reason">{reasonOf(guest)}</p>
        {guest.reasonCode && <Remedy code={guest.reasonCode} />}
        <Actions guest={guest} session={session} />
      </header>
      {seeding && <Progress doing="Bringing the standby up" of={seeding} />}
      {operation?.kind === 'verify' && operation.progress && (
        <Progress doing="Comparing it with its standby" of={operation.progress} />
      )}
      <dl class="facts">
        {factsOf(guest).map(([key, value]) => (
          <div key={key}>
            <dt>{key}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {role !== 'Standby' && protecting && (
        <section class="plots" aria-label="Plots">
          <fieldset class="spans">
            <legend>Time shown</legend>
            {(Object.keys(spans) as (keyof typeof spans)[]).map((one) => (
              <label key={one}>
                <input type="radio" name="span" checked={span === one} onChange={() => setSpan(one)} />
                {one}
              </label>
            ))}
          </fieldset>
          <div class="grid">
            {[...plots, ...(disks.length > 0 ? [diskPlot] : [])].map((plot) => (
              <Plot key={plot.title} {...plot} points={points} spanMs={spans[span]} events={own} />
            ))}
          </div>
        </section>
      )}
      {lives(guest) && <Memory name={name} session={session} />}
      {lives(guest) && role !== 'Standby' && (
        <WorkingSet guest={guest} events={own} spanMs={spans[span]} session={session} />
      )}
      {disks.length > 0 && <Disks guest={guest} />}
      <OtherSide guest={guest} />
      <Timeline events={own} title="Events" />
    </article>
  )
}

/** There is a process whose memory can be asked about. */
const lives = ({ state }: GuestStatus) => !['Failed', 'Ended', 'Hung'].includes(state)

const Progress = ({ doing, of }: { doing: string; of: NonNullable<GuestStatus['seeding']> }) => (
  <div class="seeding">
    <label>
      {doing}: {bytes(of.doneBytes)} of {bytes(of.totalBytes)}, {rate(of.bytesPerSecond)}
      {of.secondsLeft !== null && `, about ${time(of.secondsLeft * 1000)} left`}
      <progress max={of.totalBytes} value={of.doneBytes} />
    </label>
  </div>
)

/** What the table of errors says of the reason. */
const Remedy = ({ code }: { code: ErrorCode }) => (
  <p class="remedy">
    {errorTable[code]?.remedy
      .split('`')
      .map((part, index) => (index % 2 === 1 ? <code key={part}>{part}</code> : part))}{' '}
    <span class="code">{code}</span>
  </p>
)

function factsOf(guest: GuestStatus): [string, string][] {
  const { role, epochs, committed, ramBytes, accel, outputs, verified, takeover, memory, arbiter } = guest
  const facts: [string, string | undefined][] = [
    [role === 'Standby' ? 'Runs on' : 'Standby', hostOf(guest) ?? 'none'],
    ['Lag', epochs?.lagMs == null ? undefined : time(epochs.lagMs)],
    ['Pause, 99 %', epochs ? time(epochs.pauseUs.p99 / 1000) : undefined],
    [
      'Checkpoints',
      epochs ? number(epochs.checkpoints) : committed ? `newest ${committed.epoch}` : undefined,
    ],
    ['Failed', epochs && epochs.failed > 0 ? number(epochs.failed) : undefined],
    ['Memory', `${bytes(ramBytes)}, ${accel}`],
    ['Protecting takes', memory ? bytes(memory.shadowBytes + memory.reducerBytes) : undefined],
    [
      'What it sends',
      outputs === null ? undefined : outputs === 'held' ? 'waits for the commit' : 'goes at once',
    ],
    ['Compared', verified ? `${verified.equal ? 'equal' : 'different'}, ${clock(verified.at)}` : undefined],
    ['Taken over', takeover ? `${clock(takeover.at)}, in ${time(takeover.ms)}` : undefined],
    ['Arbiter', role === 'Alone' ? undefined : (arbiter ?? 'none: people decide')],
  ]
  return facts.filter((fact): fact is [string, string] => fact[1] !== undefined)
}

const clock = (ms: number) => new Date(ms).toLocaleTimeString('en-GB')

const Disks = ({ guest: { disks } }: { guest: GuestStatus }) => (
  <section class="disks">
    <h3>Disks</h3>
    {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by the keyboard */}
    <section class="scroll" tabIndex={0} aria-label="Table of disks">
      <table>
        <thead>
          <tr>
            {['disk', 'state', 'size', 'behind', 'written', 'sent', 'errors'].map((head) => (
              <th key={head} scope="col">
                {head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {disks.map(({ name, state, bytes: size, behindBytes, writtenBytes, sent, errors, lastError }) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>{state}</td>
              <td>{bytes(size)}</td>
              <td>{bytes(behindBytes)}</td>
              <td>{bytes(writtenBytes)}</td>
              <td>{bytes(sent.wireBytes)}</td>
              <td>{errors === 0 ? 'none' : `${errors}: ${lastError}`}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  </section>
)
