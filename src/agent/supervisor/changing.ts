/** One guest is started or removed by one request at a time: the second of two at once is refused. */
import { SubpageError } from '../../errors.ts'

export class Changing {
  readonly #names = new Set<string>()

  /** @throws SubpageError GUEST_EXISTS; what the work throws */
  async during<T>(name: string, host: string, work: () => Promise<T>): Promise<T> {
    if (this.#names.has(name))
      throw new SubpageError('GUEST_EXISTS', `${name} is just being started or removed on host ${host}`)
    this.#names.add(name)
    try {
      return await work()
    } finally {
      this.#names.delete(name)
    }
  }
}
