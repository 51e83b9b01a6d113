/**
 * The guests that a keeper serves, written down for the keeper after it, which takes them up by itself. With each the
 * number of its trust domain, which what is stored carries; a number is given again only when no guest has it any more.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import type { KeptGuest } from './keeper-protocol.ts'

const numbersMax = 65_535

export interface Known {
  guest: KeptGuest
  /** Guests of one number share pages. */
  domain: number
}

export class KeptGuests {
  readonly #file: string
  readonly #known: Map<string, Known>

  constructor(file: string) {
    this.#file = file
    const written = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : []
    this.#known = new Map((written as Known[]).map((known) => [known.guest.id, known]))
  }

  /** All that something may be stored for. */
  get all(): Known[] {
    return [...this.#known.values()]
  }

  has(id: string): boolean {
    return this.#known.has(id)
  }

  /** Before anything is stored for it. A guest stays in its domain until it leaves. Returns the number of that. */
  enter(guest: KeptGuest): number {
    const present = this.#known.get(guest.id)
    if (present) return present.domain
    const { trustDomain } = guest
    const same = this.all.find(
      ({ guest: other }) => trustDomain !== undefined && other.trustDomain === trustDomain,
    )
    const domain = same?.domain ?? this.#free()
    this.#known.set(guest.id, { guest, domain })
    this.#save()
    return domain
  }

  /** After everything of it has left the store. */
  leave(id: string): void {
    if (this.#known.delete(id)) this.#save()
  }

  #free(): number {
    const taken = new Set(this.all.map(({ domain }) => domain))
    for (let number = 1; number <= numbersMax; number++) if (!taken.has(number)) return number
    throw new TypeError('no more domains')
  }

  #save(): void {
    const next = `${this.#file}.next`
    writeFileSync(next, JSON.stringify(this.all), { mode: 0o600 })
    renameSync(next, this.#file)
  }
}
