/** What the agent says of one guest beside its status, asked for again and again while the place where it is shown can be seen. */
import type { RefObject } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import { ApiFailure, ask, type Session } from './session.ts'

interface Asked<T> {
  answer: T | undefined
  /** Why there is no newer answer. */
  trouble: string | undefined
}

export function useAsked<T>(
  session: Session,
  name: string,
  what: string,
  everyMs: number,
  place: RefObject<HTMLElement>,
): Asked<T> {
  const [asked, setAsked] = useState<Asked<T>>({ answer: undefined, trouble: undefined })
  useEffect(() => {
    let seen = false
    let asking = false
    let timer: ReturnType<typeof setTimeout> | undefined
    const again = async () => {
      clearTimeout(timer)
      if (!seen || document.hidden || asking) return
      asking = true
      try {
        const answer = await ask<T>(session, 'GET', `/v1/guests/${encodeURIComponent(name)}/${what}`)
        setAsked({ answer, trouble: undefined })
      } catch (error) {
        // That the agent gives no answer is said above the page.
        const trouble = error instanceof ApiFailure ? error.message : undefined
        setAsked(({ answer }) => ({ answer, trouble }))
      }
      asking = false
      timer = setTimeout(again, everyMs)
    }
    const shown = new IntersectionObserver((entries) => {
      seen = entries.at(-1)?.isIntersecting ?? false
      void again()
    })
    shown.observe(place.current!)
    document.addEventListener('visibilitychange', again)
    return () => {
      seen = false
      shown.disconnect()
      clearTimeout(timer)
      document.removeEventListener('visibilitychange', again)
    }
  }, [session, name, what, everyMs, place])
  return asked
}
