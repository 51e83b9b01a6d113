/**
 * The other side of a pair, as this host knows it by the connection that they have: who it is, what it does, how far it is behind. An agent
 * has no token for the API of another, and does not ask it for one: the page says how to look there.
 */
import type { GuestStatus } from '../../src/agent/status.ts'
import { directoryOf, hostOf, number, time } from './words.ts'

export function OtherSide({ guest }: { guest: GuestStatus }) {
  const { peer } = guest
  if (peer === null) return null
  return (
    <section class="pair" aria-label="The other side">
      <h3>The other side: {hostOf(guest)}</h3>
      <dl class="facts">
        {(guest.role === 'Standby' ? ofPrimary(guest) : ofStandby(guest)).map(([key, value]) => (
          <div key={key}>
            <dt>{key}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      <p class="hint">
        As this host knows it: agents do not ask each other. On the other host this opens its page:{' '}
        <code>{`subpage dashboard${peer.startsWith('/') ? ` --state ${directoryOf(peer)}` : ''}`}</code>
      </p>
    </section>
  )
}

function ofStandby({ role, state, committed, epochs, disks }: GuestStatus): [string, string][] {
  const doing =
    state === 'Seeding'
      ? 'is being brought up'
      : role === 'Primary' && ['Protected', 'Lagging', 'Paused'].includes(state)
        ? 'waits to take over'
        : 'is not connected'
  const behind = disks.filter(({ behindBytes }) => behindBytes > 0).length
  return [
    ['Role', 'Standby'],
    ['What it does', doing],
    ['Newest checkpoint', committed ? number(committed.epoch) : 'none'],
    ['Lag', epochs?.lagMs == null ? 'not known' : time(epochs.lagMs)],
    ...(disks.length > 0
      ? [['Disks', behind === 0 ? 'up to date' : `${behind} of ${disks.length} behind`] as [string, string]]
      : []),
  ]
}

function ofPrimary({ state, committed }: GuestStatus): [string, string][] {
  const doing =
    state === 'Protected' ? 'runs the guest' : state === 'Seeding' ? 'brings this standby up' : 'is not heard'
  return [
    ['Role', 'Primary'],
    ['What it does', doing],
    ['Newest checkpoint that came', committed ? number(committed.epoch) : 'none'],
  ]
}
