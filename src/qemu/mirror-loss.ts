/**
 * Tells once that the copying of a disk broke off. A QEMU that ends cancels its jobs: that is no failure, and why it ends is still to
 * be told to the standby. But a guest that shuts down may be about to reboot (`virsh reboot`), and run on.
 */
export class MirrorLoss {
  #tell: (why: Error) => void = nobody
  #shutsDown = false
  #untold: Error | undefined

  /** @param tell from now on, once */
  begin(tell: (why: Error) => void): void {
    this.#tell = tell
    this.#untold = undefined
  }

  /** What breaks off from now on was meant to. */
  end(): void {
    this.begin(nobody)
  }

  /** @param event of QEMU */
  heard(event: string): void {
    if (event === 'SHUTDOWN') this.#shutsDown = true
    if (event !== 'RESET' && event !== 'RESUME' && event !== 'WAKEUP') return
    this.#shutsDown = false
    if (this.#untold) this.of(this.#untold)
  }

  of(why: Error): void {
    const tell = this.#tell
    if (this.#shutsDown) this.#untold ??= why
    else {
      this.end()
      tell(why)
    }
  }
}

const nobody = (): void => undefined
