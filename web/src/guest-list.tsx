/** All guests of the host, the one that wants to be looked at first. */
import { useState } from 'preact/hooks'
import type { Point } from '../../src/agent/point-ring.ts'
import type { GuestStatus } from '../../src/agent/status.ts'
import { hostOf, reasonOf, time, toneOf } from './words.ts'

interface ListProps {
  guests: GuestStatus[]
  points: Map<string, Point[]>
  chosen: string | undefined
  choose: (name: string) => void
}

/** Fewer can be seen at once. */
const searchFrom = 8

export function GuestList({ guests, chosen, choose }: ListProps) {
  const [wanted, setWanted] = useState('')
  const words = wanted.toLowerCase().split(/\s+/)
  const shown = guests.filter((guest) => {
    const text = `${guest.name} ${guest.role} ${guest.state} ${hostOf(guest) ?? ''}`.toLowerCase()
    return words.every((word) => text.includes(word))
  })
  return (
    <nav class="guests" aria-label="Guests">
      {guests.length >= searchFrom && (
        <input
          type="search"
          placeholder={`Find among ${guests.length}: a name, a state, a host`}
          aria-label="Find a guest"
          value={wanted}
          onInput={({ currentTarget }) => setWanted(currentTarget.value)}
        />
      )}
      <ul>
        {shown.map((guest) => (
          <li key={guest.name}>
            <a
              href={`#/guest/${encodeURIComponent(guest.name)}`}
              aria-current={guest.name === chosen ? 'true' : undefined}
              onClick={() => choose(guest.name)}
            >
              <span class={`dot ${toneOf(guest)}`} aria-hidden="true" />
              <span class="name">{guest.name}</span>
              <span class={`state ${toneOf(guest)}`}>{guest.state}</span>
              <span class="why">{reasonOf(guest)}</span>
              <span class="lag">{lagOf(guest)}</span>
            </a>
          </li>
        ))}
      </ul>
      {shown.length === 0 && <p class="none">No guest is called so.</p>}
    </nav>
  )
}

const lagOf = ({ role, epochs }: GuestStatus) =>
  role === 'Standby' ? 'standby' : epochs?.lagMs == null ? '' : time(epochs.lagMs)
