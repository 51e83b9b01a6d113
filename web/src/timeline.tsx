/** Events, the newest first. */
import type { HostEvent } from '../../src/agent/event-log.ts'

const shownMax = 200

export function Timeline({ events, title }: { events: HostEvent[]; title: string }) {
  const shown = events.slice(-shownMax).toReversed()
  return (
    <section class="events">
      <h3>{title}</h3>
      {shown.length === 0 ? (
        <p class="none">Nothing has happened since the agent began.</p>
      ) : (
        <ol>
          {shown.map(({ time, guest, kind, text }, index) => (
            <li key={`${time}${index}`} class={kind}>
              <time dateTime={time} title={time}>
                {new Date(time).toLocaleTimeString('en-GB')}
              </time>
              <span class="kind">{kind}</span>
              <span class="text">
                {guest !== '' && <b>{guest}</b>} {text}
              </span>
            </li>
          ))}
        </ol>
      )}
    </section>
  )
}
