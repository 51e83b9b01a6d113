/** A pair whose schedule is written down, in place of drawn: what goes wrong, and when, in milliseconds. */
import { pauseLimits } from '../../src/replication/pause-limits.ts'
import { type SimSettings, SimWorld } from './sim-world.ts'

const settings: SimSettings = {
  pages: 8,
  stepMs: 4,
  epochMs: 25,
  pauseShareMax: undefined,
  suspicionMs: 100,
  outputs: 'held',
  chosen: true,
  sameMachine: false,
  apart: false,
  tracker: 'userfault',
  codec: 'masked',
  sending: { reduce: [], blockBytes: 64, compress: 'off', speculate: 'off' },
  limits: pauseLimits,
  hotPages: undefined,
}

export type SimPair = ReturnType<typeof pairOf>

/** Two hosts with their supervisors; a guest runs on `a`, and is protected to `b` from the first moment on. */
export function pairOf(world = new SimWorld(1, () => settings)) {
  const [a, b] = world.hosts as [SimWorld['hosts'][0], SimWorld['hosts'][0]]
  for (const host of world.hosts) host.startSupervisor()
  const { epochMs, suspicionMs, outputs, tracker, codec, sending } = world.settings
  const protect = () => {
    const settings = { to: 'b', epochMs, suspicionMs, outputs, tracker, codec, ...sending }
    const begin = () => void a.supervisor?.protect(settings).catch((error) => world.fail(error))
    a.supervisor?.process.enter(begin)
  }
  a.supervisor?.run()
  protect()
  return {
    ...{ world, a, b, protect },
    at: (ms: number, run: () => void) => world.time.after(ms, run),
    /** @throws Violation */
    runFor: async (ms: number) => {
      let over = false
      world.time.after(ms, () => {
        over = true
      })
      await world.time.run(() => {
        if (world.failure) throw world.failure
        return over
      })
    },
    close: () => {
      for (const host of world.hosts) host.crashSupervisor()
      for (const qemu of world.qemus) qemu.ram.close()
    },
  }
}
