/** Which guests are meant by an id: other hosts ask by id, people by name. */
export class GuestIds {
  readonly #names = new Map<string, string>()

  /** Several ids may lead to one name: whoever asks for a guest that only has the name of one here hears that from its supervisor. */
  note(id: string, name: string): void {
    this.#names.set(id, name)
  }

  nameOf(id: string): string | undefined {
    return this.#names.get(id)
  }

  /** The first that was noted. */
  idOf(name: string): string | undefined {
    for (const [id, other] of this.#names) if (other === name) return id
    return undefined
  }

  /** The guest of that name has left this host: another one may follow. */
  forget(name: string): void {
    for (const [id, other] of this.#names) if (other === name) this.#names.delete(id)
  }
}
