/**
 * What this page may ask, and how. The one-time token of the address becomes a session's, kept in this tab alone: no cookie, so no other
 * page can use it.
 */
export interface Session {
  token: string
  rights: 'operate' | 'read'
}

const key = 'subpage-session'

export class ApiFailure extends Error {
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

/** Undefined when nobody has let this tab in. @throws ApiFailure when its address has been used before */
export async function openSession(): Promise<Session | undefined> {
  const oneTime = location.hash.slice(1)
  if (/^[0-9a-f]{64}$/.test(oneTime)) {
    // It is of no more use, and not for the history.
    history.replaceState(null, '', '/')
    const session = await ask<Session>({ token: oneTime }, 'POST', '/v1/session')
    sessionStorage.setItem(key, JSON.stringify(session))
    return session
  }
  const kept = sessionStorage.getItem(key)
  return kept === null ? undefined : (JSON.parse(kept) as Session)
}

export function endSession(): void {
  sessionStorage.removeItem(key)
}

/** @throws ApiFailure what the agent answers; TypeError when it gives no answer */
export async function ask<T>(
  { token }: Pick<Session, 'token'>,
  method: string,
  path: string,
  body?: unknown,
): Promise<T> {
  const response = await fetch(path, {
    method,
    headers: {
      authorization: `Bearer ${token}`,
      ...(body !== undefined && { 'content-type': 'application/json' }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  })
  if (!response.ok) throw await failureOf(response)
  return (await response.json()) as T
}

/** Server-sent events by fetch, which can show a token as EventSource cannot. Ends with the agent or the signal. */
export async function* follow<T>({ token }: Session, path: string, signal: AbortSignal): AsyncGenerator<T> {
  const response = await fetch(path, { headers: { authorization: `Bearer ${token}` }, signal })
  if (!response.ok || !response.body) throw await failureOf(response)
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  for (;;) {
    const { value, done } = await reader.read()
    if (done) return
    const parts = (rest + value).split('\n\n')
    rest = parts.pop() ?? ''
    for (const part of parts) yield JSON.parse(part.replace(/^data: /, '')) as T
  }
}

async function failureOf(response: Response): Promise<ApiFailure> {
  // Something between us and the agent may answer in another form.
  const { code, message } = await response.json().catch(() => ({}))
  return new ApiFailure(code ?? 'INTERNAL', message ?? `${response.status} ${response.statusText}`)
}
