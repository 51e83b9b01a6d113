/**
 * What the agent says, once a second, and what has happened; reconnects by itself. Points of guests are kept for an hour: those before
 * this page was opened are the agent's (src/agent/guest-history.ts), the rest are ours.
 */
import { useEffect, useReducer, useRef } from 'preact/hooks'
import type { HostEvent } from '../../src/agent/event-log.ts'
import type { LiveMessage } from '../../src/agent/live-status.ts'
import type { Point } from '../../src/agent/point-ring.ts'
import type { HostStatus } from '../../src/agent/status.ts'
import { ApiFailure, ask, endSession, follow, type Session } from './session.ts'

const hourMs = 3600_000
const eventsMax = 1000
const againMs = 1500

export interface Live {
  status: HostStatus | undefined
  /** When it came. */
  atMs: number
  events: HostEvent[]
  points: Map<string, Point[]>
  /** Why nothing new comes, if nothing does. */
  trouble: string | undefined
  /** Nobody lets us in any more. */
  refused: string | undefined
}

export function useLive(session: Session): Live {
  const live = useRef<Live>({
    status: undefined,
    atMs: 0,
    events: [],
    points: new Map(),
    trouble: undefined,
    refused: undefined,
  }).current
  const [, changed] = useReducer<number, void>((count) => count + 1, 0)
  useEffect(() => {
    const ending = new AbortController()
    const { signal } = ending
    const again = async (run: () => Promise<void>) => {
      while (!signal.aborted && live.refused === undefined) {
        try {
          await run()
        } catch (error) {
          if (signal.aborted) return
          if (error instanceof ApiFailure && error.code === 'AUTH_REFUSED') {
            live.refused = error.message
            endSession()
            changed()
            return
          }
        }
        live.trouble =
          'The agent gives no answer. What it protects goes on; this page connects again by itself.'
        changed()
        await new Promise((resolve) => setTimeout(resolve, againMs))
      }
    }
    void again(async () => {
      for await (const message of follow<LiveMessage>(session, '/v1/status/stream', signal)) {
        live.trouble = 'code' in message ? message.message : undefined
        if ('status' in message) {
          live.status = message.status
          live.atMs = Date.now()
          for (const { name } of message.status.guests) {
            if (!live.points.has(name)) {
              live.points.set(name, [])
              void loadHistory(session, name, live)
            }
            const point = message.points[name]
            if (point) keep(live, name, point)
          }
        }
        changed()
      }
    })
    void again(async () => {
      // Each connection begins with what is kept.
      let events: HostEvent[] = []
      for await (const event of follow<HostEvent>(session, '/v1/events/stream', signal)) {
        events = [...events, event].slice(-eventsMax)
        live.events = events
      }
    })
    return () => ending.abort()
  }, [session, live])
  return live
}

async function loadHistory(session: Session, name: string, live: Live): Promise<void> {
  try {
    const { points } = await ask<{ points: Point[] }>(
      session,
      'GET',
      `/v1/guests/${encodeURIComponent(name)}/history`,
    )
    const ours = live.points.get(name) ?? []
    const first = ours[0]?.[0] ?? Number.POSITIVE_INFINITY
    live.points.set(name, [...points.filter(([at]) => (at ?? 0) < first), ...ours])
  } catch {
    // The guest has just left; without it the plots begin now.
  }
}

function keep(live: Live, name: string, point: Point): void {
  const points = live.points.get(name)!
  points.push(point)
  while ((points[0]?.[0] ?? 0) < (point[0] ?? 0) - hourMs) points.shift()
}
