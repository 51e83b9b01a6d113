/** The page: the guests of a host beside the one that is looked at; and what is shown while there is nothing to show. */
import type { ComponentChildren } from 'preact'
import { useEffect, useMemo, useState } from 'preact/hooks'
import { GuestList } from './guest-list.tsx'
import { GuestView } from './guest-view.tsx'
import { useLive } from './live.ts'
import { openSession, type Session } from './session.ts'
import { Timeline } from './timeline.tsx'
import { byUrgency, toneOf } from './words.ts'

type Opening = 'opening' | Session | { closed: string }

export function App() {
  const [opened, setOpened] = useState<Opening>('opening')
  useEffect(() => {
    openSession().then(
      (session) => setOpened(session ?? { closed: 'This tab has not been let in yet.' }),
      (error: Error) => setOpened({ closed: error.message }),
    )
  }, [])
  if (opened === 'opening') return <Notice title="One moment" />
  if ('closed' in opened) return <Closed why={opened.closed} />
  return <Host session={opened} />
}

const Notice = ({ title, children }: { title: string; children?: ComponentChildren }) => (
  <main class="notice">
    <h1>{title}</h1>
    {children}
  </main>
)

const Closed = ({ why }: { why: string }) => (
  <Notice title="This page needs an address of its own">
    <p>{why}</p>
    <p>On the host of the agent, this prints one that works once:</p>
    <pre>
      <code>subpage dashboard</code>
    </pre>
  </Notice>
)

/** The guest in the address. */
const chosenIn = (hash: string) => {
  const name = /^#\/guest\/(.+)$/.exec(hash)?.[1]
  return name === undefined ? undefined : decodeURIComponent(name)
}

const hashOf = (name: string) => `#/guest/${encodeURIComponent(name)}`

/** @returns the guest that is looked at, how one is chosen, and how one comes to be looked at that nobody chose */
function useChosen(): [string | undefined, (name: string | undefined) => void, (name: string) => void] {
  const [chosen, setChosen] = useState(chosenIn(location.hash))
  useEffect(() => {
    const changed = () => setChosen(chosenIn(location.hash))
    addEventListener('hashchange', changed)
    return () => removeEventListener('hashchange', changed)
  }, [])
  return [
    chosen,
    (name) => {
      location.hash = name === undefined ? '' : hashOf(name)
    },
    (name) => {
      // Whoever goes back wants to leave the page, and not this guest.
      history.replaceState(null, '', hashOf(name))
      setChosen(name)
    },
  ]
}

function Host({ session }: { session: Session }) {
  const live = useLive(session)
  const [chosen, choose, begin] = useChosen()
  const { status } = live
  const guests = useMemo(() => status?.guests.toSorted(byUrgency) ?? [], [status])
  const [wide, setWide] = useState(() => matchMedia('(min-width: 861px)').matches)
  useEffect(() => {
    const query = matchMedia('(min-width: 861px)')
    const changed = () => setWide(query.matches)
    query.addEventListener('change', changed)
    return () => query.removeEventListener('change', changed)
  }, [])
  useEffect(() => {
    const pressed = ({ key, target }: KeyboardEvent) => {
      if (target instanceof HTMLInputElement || document.querySelector('dialog[open]')) return
      const names = guests.map(({ name }) => name)
      const step = { j: 1, k: -1 }[key]
      if (step !== undefined && names.length > 0)
        choose(names[Math.max(0, Math.min(names.length - 1, names.indexOf(chosen ?? '') + step))])
      if (key === 'Escape') choose(undefined)
    }
    addEventListener('keydown', pressed)
    return () => removeEventListener('keydown', pressed)
  }, [guests, chosen])
  // Another may come first at any time, and the window may change: what somebody looks at, and is asked about, stays.
  const first = wide && chosen === undefined ? guests[0]?.name : undefined
  useEffect(() => {
    if (first !== undefined) begin(first)
  }, [first])
  useEffect(() => {
    const bad = guests.filter((guest) => toneOf(guest) === 'bad').length
    document.title = `${bad > 0 ? `(${bad}) ` : ''}${status?.host ?? 'subpage'} · subpage`
  }, [guests, status])

  if (live.refused !== undefined) return <Closed why={live.refused} />
  if (!status)
    return live.trouble === undefined ? (
      <Notice title="One moment" />
    ) : (
      <Notice title="The agent gives no answer">
        <p>{live.trouble}</p>
      </Notice>
    )
  const guest = guests.find(({ name }) => name === chosen)
  const count = (tone: string) => guests.filter((one) => toneOf(one) === tone).length
  const safe = count('good')
  return (
    <div class={`host ${guest ? 'one' : 'all'} ${live.trouble === undefined ? '' : 'stale'}`}>
      <header class="top">
        <div class="brand">
          <img src="/icon.svg" alt="" width="22" height="22" />
          <h1>{status.host}</h1>
        </div>
        <p class="summary">{guests.length === 0 ? 'no guests' : `${safe} of ${guests.length} safe`}</p>
        {session.rights === 'read' && <p class="tag">read only</p>}
        <p class={`link ${live.trouble === undefined ? 'on' : 'off'}`} role="status">
          {live.trouble === undefined ? 'live' : 'connecting again'}
        </p>
      </header>
      {live.trouble !== undefined && (
        <p class="banner" role="alert">
          {live.trouble} What is below is of {new Date(live.atMs).toLocaleTimeString('en-GB')}.
        </p>
      )}
      {status.arbiter.trouble !== null && (
        <p class="banner" role="alert">
          The arbiter ({status.arbiter.description}) gives no answer: {status.arbiter.trouble}. While it does
          not, neither host goes on by itself when two hosts lose each other.
        </p>
      )}
      {guests.length === 0 ? (
        <main class="notice">
          <h2>No guest runs here yet</h2>
          <p>Start one and give it a standby:</p>
          <pre>
            <code>{`subpage run NAME --disk FILE\nsubpage protect NAME --to OTHER-HOST`}</code>
          </pre>
          <Timeline events={live.events} title="What has happened on this host" />
        </main>
      ) : (
        <div class="columns">
          <GuestList guests={guests} points={live.points} chosen={guest?.name} choose={choose} />
          <main class="detail">
            {guest ? (
              <GuestView
                key={guest.name}
                guest={guest}
                points={live.points.get(guest.name) ?? []}
                events={live.events}
                session={session}
                close={() => choose(undefined)}
              />
            ) : chosen !== undefined ? (
              <div class="notice">
                <h2>{chosen} is not on this host</h2>
                <p>It has left, or was removed. The events say when.</p>
                <button type="button" onClick={() => choose(undefined)}>
                  All guests
                </button>
                <Timeline events={live.events.filter((event) => event.guest === chosen)} title="Events" />
              </div>
            ) : (
              <Timeline events={live.events} title="What has happened on this host" />
            )}
          </main>
        </div>
      )}
    </div>
  )
}
