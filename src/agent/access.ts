/**
 * Who may ask the API over TCP for what: the token of a file may do everything, that of another only read, and a page of the
 * dashboard as much as the one-time token that opened it. Secrets are kept as digests, and compared as such, so that neither the
 * time nor the length of a guess tells anything.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { SubpageError } from '../errors.ts'
import { limits } from '../limits.ts'

export type Rights = 'operate' | 'read'

export interface Session {
  token: string
  rights: Rights
}

interface Grant {
  digest: Buffer
  rights: Rights
  /** performance.now() */
  until: number
}

/** Guesses are answered one after another, each so much later. */
const failureMs = 250
const oneTimeMs = 120_000
const sessionMs = 12 * 3600_000
const grantsMax = limits.dashboardSessions.value

const digest = (text: string) => createHash('sha256').update(text).digest()

export class Access {
  readonly #files: readonly Grant[]
  #oneTime: Grant[] = []
  #sessions: Grant[] = []
  #queue: Promise<unknown> = Promise.resolve()

  /** @param tokens of files; without any only pages of the dashboard get in */
  constructor(tokens: { operate?: string; read?: string }) {
    this.#files = (['operate', 'read'] as const).flatMap((rights) => {
      const token = tokens[rights]
      return token === undefined ? [] : [{ digest: digest(token), rights, until: Number.POSITIVE_INFINITY }]
    })
  }

  /** For one page of the dashboard, within two minutes. */
  invite(rights: Rights): string {
    return add(this.#oneTime, rights, oneTimeMs)
  }

  /** @throws SubpageError AUTH_REFUSED when it has been used, or is too old */
  async enter(authorization: string | undefined): Promise<Session> {
    const grant = find(this.#oneTime, authorization)
    if (!grant)
      return await this.#refuse(
        'this address of the dashboard has been used, or is too old: subpage dashboard prints another one',
      )
    this.#oneTime = this.#oneTime.filter((one) => one !== grant)
    return { token: add(this.#sessions, grant.rights, sessionMs), rights: grant.rights }
  }

  /** @param needs what the request is about @throws SubpageError AUTH_REFUSED, READ_ONLY */
  async check(authorization: string | undefined, needs: Rights): Promise<void> {
    const grant = find([...this.#files, ...this.#sessions], authorization)
    if (!grant)
      return await this.#refuse(
        authorization === undefined
          ? 'the API asks for its token: give --api-token-file'
          : 'the token is not that of this agent (--api-token-file)',
      )
    if (needs === 'operate' && grant.rights === 'read')
      throw new SubpageError('READ_ONLY', 'this token may only read: ask with the one of --api-token-file')
  }

  async #refuse(message: string): Promise<never> {
    this.#queue = this.#queue.then(() => delay(failureMs))
    await this.#queue
    throw new SubpageError('AUTH_REFUSED', message)
  }
}

function add(grants: Grant[], rights: Rights, ms: number): string {
  const token = randomBytes(32).toString('hex')
  grants.push({ digest: digest(token), rights, until: performance.now() + ms })
  // The oldest go.
  grants.splice(0, Math.max(0, grants.length - grantsMax))
  return token
}

function find(grants: readonly Grant[], authorization: string | undefined): Grant | undefined {
  const given = digest(/^Bearer (.+)$/s.exec(authorization ?? '')?.[1] ?? '')
  // All of them are looked at, whichever it is.
  const found = grants.filter((grant) => timingSafeEqual(grant.digest, given))
  return found.find(({ until }) => until > performance.now())
}
