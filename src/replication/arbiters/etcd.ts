/**
 * Arbiter in an etcd cluster (etcd 3.4 or later; docs at etcd.io, "etcd API").
 *
 * A claim is one transaction: if the key was never created (create_revision 0), put it, else get it. Such a transaction
 * goes through the cluster's log, so there is one winner, and both claimants get the same answer from whichever member.
 * An attempt whose answer is lost may have won: the next one, which finds our own name, tells. Reads are linearizable,
 * which is etcd's default: a serializable one could be answered by a member that is cut off and knows nothing yet.
 *
 * Marks hang on a lease and go by themselves. Decisions do not: one that expired would let a second winner in while the
 * first one's guest still runs.
 */
import { setMaxListeners } from 'node:events'
import { type Static, Type } from '#typebox'
import { SubpageError } from '../../errors.ts'
import type { Arbiter, Holder } from '../arbiter.ts'
import {
  checkMark,
  decisionBytesMax,
  decodeDecision,
  encodeClaim,
  type Question,
  question,
} from './decision.ts'
import { EtcdGateway, type EtcdGatewayOptions } from './etcd-gateway.ts'
import { within } from './patience.ts'

export interface EtcdArbiterOptions extends EtcdGatewayOptions {
  /** Before every key; ends with a slash. */
  prefix: string
  /** A whole call takes no longer than that. */
  limitMs: number
}

const markSeconds = 60

/** Of an answer: which cluster gave it, and after how many changes. */
const header = Type.Optional(
  Type.Object({ cluster_id: Type.Optional(Type.String()), revision: Type.Optional(Type.String()) }),
)
/** The gateway leaves out what is zero, false or empty. */
const Range = Type.Object({
  header,
  kvs: Type.Optional(Type.Array(Type.Object({ value: Type.Optional(Type.String()) }), { maxItems: 1 })),
})
const Transaction = Type.Object({
  header,
  succeeded: Type.Optional(Type.Boolean()),
  responses: Type.Array(Type.Object({ response_range: Type.Optional(Range) }), { minItems: 1 }),
})
const Lease = Type.Object({ ID: Type.String({ pattern: '^-?[0-9]+$' }) })
const Done = Type.Object({ header })

export class EtcdArbiter implements Arbiter {
  readonly description: string
  readonly #gateway: EtcdGateway
  readonly #prefix: string
  readonly #limitMs: number
  readonly #closed = new AbortController()
  #cluster: string | undefined
  #revision = 0n
  memory = 0

  constructor({ prefix, limitMs, ...gateway }: EtcdArbiterOptions) {
    this.#gateway = new EtcdGateway(gateway)
    this.#prefix = prefix
    this.#limitMs = limitMs
    this.description = this.#gateway.description
    // One for each call under way.
    setMaxListeners(0, this.#closed.signal)
  }

  async claim(guest: string, generation: number, claimant: string, signal?: AbortSignal): Promise<Holder> {
    const asked = question(guest, generation)
    const { text, holder } = encodeClaim(asked, claimant)
    const key = this.#decisionKey(asked)
    const transaction = {
      compare: [{ key: base64(key), target: 'CREATE', result: 'EQUAL', create_revision: '0' }],
      success: [{ request_put: { key: base64(key), value: base64(text) } }],
      failure: [{ request_range: { key: base64(key) } }],
    }
    return await this.#within(signal, async (givenUp) => {
      const answer = await this.#ask('/v3/kv/txn', transaction, Transaction, givenUp)
      if (answer.succeeded) return holder
      const standing = this.#decision(asked, answer.responses[0]?.response_range)
      if (standing) return standing
      throw new SubpageError('ARBITER_UNREACHABLE', `etcd says that ${key} exists, but not what it holds`)
    })
  }

  async holder(guest: string, generation: number, signal?: AbortSignal): Promise<Holder | undefined> {
    const asked = question(guest, generation)
    return await this.#within(signal, async (givenUp) => {
      const key = base64(this.#decisionKey(asked))
      return this.#decision(asked, await this.#ask('/v3/kv/range', { key }, Range, givenUp))
    })
  }

  async leaveMark(mark: string): Promise<void> {
    checkMark(mark)
    await this.#within(undefined, async (givenUp) => {
      // Asked twice, the first lease just runs out.
      const lease = await this.#gateway.ask('/v3/lease/grant', { TTL: String(markSeconds) }, Lease, givenUp)
      const put = { key: base64(this.#markKey(mark)), value: base64('1'), lease: lease.ID }
      await this.#ask('/v3/kv/put', put, Done, givenUp)
    })
  }

  async seesMark(mark: string): Promise<boolean> {
    checkMark(mark)
    return await this.#within(undefined, async (givenUp) => {
      const key = base64(this.#markKey(mark))
      const { kvs } = await this.#ask('/v3/kv/range', { key }, Range, givenUp)
      return kvs?.[0] !== undefined
    })
  }

  close(): void {
    this.#closed.abort()
    this.#gateway.close()
  }

  /** A question about what is stored. */
  async #ask<T extends typeof Range | typeof Transaction | typeof Done>(
    path: string,
    body: unknown,
    schema: T,
    givenUp: AbortSignal,
  ): Promise<Static<T>> {
    const [before, cluster] = [this.#revision, this.#cluster]
    const answer = await this.#gateway.ask(path, body, schema, givenUp)
    const { cluster_id = '', revision = '0' } = answer.header ?? {}
    // Answers are linearizable: what is asked later counts as many changes as were seen before, or more. Less: the cluster
    // was restored from a backup, or set up anew. Another call may have noticed it meanwhile.
    if (
      cluster === this.#cluster &&
      cluster !== undefined &&
      (cluster_id !== cluster || BigInt(revision) < before)
    ) {
      if (before <= this.#revision) this.memory++
      this.#revision = 0n
    }
    this.#cluster = cluster_id
    if (BigInt(revision) > this.#revision) this.#revision = BigInt(revision)
    return answer
  }

  #within<T>(signal: AbortSignal | undefined, run: (givenUp: AbortSignal) => Promise<T>): Promise<T> {
    const expired = () => this.#gateway.expired(this.#limitMs)
    return within({ limitMs: this.#limitMs, signal, closed: this.#closed.signal, expired }, run)
  }

  #decisionKey({ guest, generation }: Question): string {
    return `${this.#prefix}decisions/${guest}/${generation}`
  }

  #markKey(mark: string): string {
    return `${this.#prefix}marks/${mark}`
  }

  #decision(asked: Question, range: Static<typeof Range> | undefined): Holder | undefined {
    const found = range?.kvs?.[0]
    if (!found) return undefined
    const text = Buffer.from(found.value ?? '', 'base64').toString('utf8')
    const place = `the value of ${this.#decisionKey(asked)} in etcd`
    return decodeDecision(text.length <= decisionBytesMax ? text : '', asked, place)
  }
}

function base64(text: string): string {
  return Buffer.from(text).toString('base64')
}
