/** Whoever types commands in a simulation: any of them at any time, and what helps where no arbiter decides. */
import { asSubpageError } from '../../src/errors.ts'
import type { ProtectionSettings } from '../../src/replication/protection-settings.ts'
import type { SimHost } from './sim-host.ts'
import type { SimWorld } from './sim-world.ts'

export class Operator {
  readonly #world: SimWorld

  constructor(world: SimWorld) {
    this.#world = world
  }

  /** Any command, drawn. */
  operate(host: SimHost): void {
    const { integer } = this.#world.random
    const commands = ['switchover', 'switchover', 'failover', 'unprotect', 'protect', 'remove'] as const
    switch (commands[integer(0, commands.length - 1)]) {
      case 'switchover':
        this.#command('switchover', host, (supervisor) => supervisor.switchover())
        return
      case 'failover':
        this.#command('failover', host, (supervisor) => supervisor.failover(false))
        return
      case 'unprotect':
        this.#command('unprotect', host, (supervisor) => supervisor.unprotect())
        return
      case 'protect':
        this.protect(host)
        return
      case 'remove':
        if (integer(0, 9) > 0 && host.supervisor?.hosted?.kind === 'running') return
        this.#command('remove', host, (supervisor) => supervisor.remove())
        return
    }
  }

  #command(
    name: string,
    host: SimHost,
    run: (supervisor: NonNullable<SimHost['supervisor']>) => Promise<void>,
  ): void {
    const { supervisor } = host
    supervisor?.process.enter(() => {
      this.#world.note(`-- command ${name} on ${host.name}`)
      if (name === 'switchover' || name === 'failover') this.#world.commanded = true
      const work = async () => await run(supervisor)
      work().then(
        () => supervisor.say(`${name} is done`),
        (error) => {
          supervisor.say(`${name}: ${asSubpageError(error).message}`)
          this.#world.unexpected(asSubpageError(error), supervisor)
        },
      )
    })
  }

  #protection(to: string): ProtectionSettings {
    const { epochMs, pauseShareMax, suspicionMs, outputs, tracker, codec, sending } = this.#world.settings
    return {
      to,
      epochMs,
      ...(pauseShareMax !== undefined && { pauseShareMax }),
      suspicionMs,
      outputs,
      tracker,
      codec,
      ...(!this.#world.broken.plain && sending),
    }
  }

  /** People come to see after it. */
  help(): void {
    const { settings } = this.#world
    if (settings.chosen && settings.outputs === 'held') return
    for (const host of this.#world.hosts)
      if (host.supervisor?.hosted?.kind === 'standby' && this.#world.copies.length === 0) {
        this.#world.forced = true
        this.#command('failover --force', host, (supervisor) => supervisor.failover(true))
      }
  }

  protect(host: SimHost): void {
    const to = host.name === 'a' ? 'b' : 'a'
    this.#command('protect', host, (supervisor) => supervisor.protect(this.#protection(to)))
  }
}
