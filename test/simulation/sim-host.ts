/** A host: whether it has power, what its disk remembers, and the supervisor that runs on it. */
import { asSubpageError } from '../../src/errors.ts'
import type { GuestRecord } from '../../src/qemu/guest-record.ts'
import type { Station } from './sim-network.ts'
import { SimSupervisor } from './sim-supervisor.ts'
import type { SimWorld } from './sim-world.ts'

export class SimHost implements Station {
  readonly name: string
  readonly world: SimWorld
  alive = true
  listener: Station['listener']
  /** What is on its disk. */
  disk: GuestRecord | undefined
  supervisor: SimSupervisor | undefined

  constructor(world: SimWorld, name: string) {
    this.world = world
    this.name = name
  }

  startSupervisor(): void {
    // One that takes too long to end is killed.
    if (this.supervisor && !this.listener) this.crashSupervisor()
    if (!this.alive || this.supervisor) return
    this.supervisor = new SimSupervisor(this)
    this.supervisor.start()
  }

  /** kill -9: its QEMUs stay, except that nobody holds the control socket of one that waits. */
  crashSupervisor(): void {
    const { supervisor } = this
    if (!supervisor) return
    this.world.hit(this.name)
    this.supervisor = undefined
    this.listener = undefined
    supervisor.process.die()
    this.world.network.ended(supervisor.process, this)
  }

  /** The supervisor ends in an orderly way; the guest runs on. */
  async endSupervisor(forMs: number): Promise<void> {
    const { supervisor } = this
    if (!supervisor) return
    this.listener = undefined
    try {
      await supervisor.commands.close()
    } catch (error) {
      supervisor.say(`does not end well: ${asSubpageError(error).message}`)
    }
    if (this.supervisor !== supervisor) return
    this.crashSupervisor()
    this.world.time.after(forMs, () => this.startSupervisor())
  }

  loseEverything(): void {
    this.alive = false
    this.crashSupervisor()
    for (const qemu of this.world.qemus)
      if (qemu.host === this.name) qemu.die({ how: 'died', detail: 'its host died' })
  }

  comeBack(): void {
    if (this.alive) return
    this.alive = true
    this.world.network.retry()
    this.startSupervisor()
  }
}
