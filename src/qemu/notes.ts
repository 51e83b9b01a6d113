/** What the operator should know of a QEMU: kept until somebody listens, and told from then on. */
export class Notes {
  /** Not told yet. */
  readonly kept: string[] = []
  #tell: ((text: string) => void) | undefined

  add(text: string): void {
    if (this.#tell) this.#tell(text)
    else this.kept.push(text)
  }

  /** In place of whoever listened before. */
  follow(tell: (text: string) => void): void {
    this.#tell = tell
    for (const text of this.kept.splice(0)) tell(text)
  }
}
