/** How much memory a guest uses, where somebody watches; whoever may operate can watch from here, as long as the page is open. */
import { useEffect, useRef, useState } from 'preact/hooks'
import type { HostEvent } from '../../src/agent/event-log.ts'
import type { WorkingSets } from '../../src/agent/memory-status.ts'
import type { GuestStatus } from '../../src/agent/status.ts'
import { Plot } from './plot.tsx'
import { follow, type Session } from './session.ts'
import { useAsked } from './use-asked.ts'
import { bytes, number } from './words.ts'

const pageBytes = 4096

interface WorkingSetProps {
  guest: GuestStatus
  events: HostEvent[]
  spanMs: number
  session: Session
}

export function WorkingSet({ guest: { name }, events, spanMs, session }: WorkingSetProps) {
  const place = useRef<HTMLElement>(null)
  const { answer, trouble } = useAsked<WorkingSets>(session, name, 'working-set/history', 2_000, place)
  const [watching, setWatching] = useState(false)
  const [failure, setFailure] = useState<string>()
  useEffect(() => {
    if (!watching) return undefined
    const ending = new AbortController()
    void watch(session, name, ending.signal)
      .catch((error: Error) => error.message)
      .then((message) => {
        if (ending.signal.aborted) return
        setFailure(message)
        setWatching(false)
      })
    return () => ending.abort()
  }, [watching, session, name])
  const said = failure ?? trouble
  return (
    <section class="wss" ref={place} aria-label="Working set">
      <header>
        <h3>Working set</h3>
        {session.rights === 'operate' && (
          <button type="button" aria-pressed={watching} onClick={() => setWatching(!watching)}>
            {watching ? 'Stop watching' : 'Watch its memory'}
          </button>
        )}
      </header>
      {answer && <p class="hint">{wordsOf(answer, session, name)}</p>}
      {said !== undefined && <p class="hint">{said}</p>}
      {answer && answer.points.length > 1 && (
        <Plot
          title="Memory that it uses"
          columns={answer.columns}
          points={answer.points}
          series={[
            { column: 'pages', label: 'used', color: '--a' },
            { column: 'writtenPages', label: 'written', color: '--b' },
          ]}
          format={(pages) => bytes(pages * pageBytes)}
          spanMs={spanMs}
          events={events}
        />
      )}
    </section>
  )
}

function wordsOf({ watched, latest }: WorkingSets, { rights }: Session, name: string): string {
  if (latest) {
    const { estimate, ramPages, costShare } = latest
    const used = `${bytes(estimate.pages * pageBytes)} ± ${bytes(estimate.plusMinus * pageBytes)}`
    const of = `of ${bytes(ramPages * pageBytes)} used`
    return `${used} ${of}${estimate.stable ? '' : ', not steady yet'}; watching has cost ${number(100 * costShare)} % of its time`
  }
  if (watched) return 'Its memory is watched; the first interval is not over yet.'
  const how = rights === 'operate' ? '' : `: subpage wss ${name}`
  return `Nobody watches which memory it uses${how}. Watching costs 1 % of its time at most.`
}

/** Ends with the watch. @returns why it has ended */
async function watch(session: Session, name: string, signal: AbortSignal): Promise<string | undefined> {
  const path = `/v1/guests/${encodeURIComponent(name)}/working-set`
  for await (const sample of follow<object>(session, path, signal))
    if ('message' in sample) return String(sample.message)
  return 'The agent has ended.'
}
