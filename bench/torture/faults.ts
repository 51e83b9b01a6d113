/** What happens to the hosts: each fault is drawn, done and over, and says what exactly it was. */
import { setTimeout as delay } from 'node:timers/promises'
import { type FaultPoint, faultPoints } from '../../src/replication/fault.ts'
import { untilExited } from '../../test/support/hosts.ts'
import type { SeededRandom } from '../../test/support/random.ts'
import type { TestHost, TwoHosts } from '../../test/support/two-hosts.ts'
import type { WireFault } from '../../test/support/wire-proxy.ts'
import { healMs, type TorturedGuest } from './guest.ts'

interface Scene {
  hosts: TwoHosts
  guest: TorturedGuest
  /** Where the guest runs, and where its standby is. */
  from: TestHost
  to: TestHost
  /** Of the guest's QEMU. */
  pid: number
  random: SeededRandom
}

/** Resolves when the fault is over; agents that it killed run again. Says what exactly it did. */
type Fault = (scene: Scene) => Promise<string>

const some = (random: SeededRandom, minMs: number, maxMs: number) => random.integer(minMs, maxMs)

async function restartAfter(host: TestHost, ms: number, fault?: string): Promise<void> {
  await host.endAll('SIGKILL')
  await delay(ms)
  await host.start(fault)
}

/** Only the agent, or the supervisor of the guest too. */
const restart =
  (which: 'from' | 'to', signal: 'SIGKILL' | 'SIGTERM', what: 'agent' | 'all'): Fault =>
  async (scene) => {
    const ms = some(scene.random, 0, 1_500)
    const host = scene[which]
    await (what === 'agent' ? host.endAgent(signal) : host.endAll(signal))
    await delay(ms)
    await host.start()
    return `${what === 'agent' ? 'agent' : 'agent and supervisor'} of ${host.name}, back after ${ms} ms`
  }

const killSupervisor =
  (which: 'from' | 'to'): Fault =>
  async (scene) => {
    const { supervisors, name } = scene[which]
    for (const pid of supervisors) signal(pid, 'SIGKILL')
    await untilExited(supervisors)
    return `process ${supervisors.join()} of ${name}`
  }

/** Both stop, or one, and go on as if nothing had happened. */
const stop =
  (agentOf: ('from' | 'to')[], qemu: boolean): Fault =>
  async (scene) => {
    const ms = some(scene.random, 100, 2_000)
    if (qemu) signal(scene.pid, 'SIGSTOP')
    for (const which of agentOf) scene[which].signal('SIGSTOP')
    await delay(ms)
    // Either may be the first to go on.
    const first = scene.random.integer(0, 1)
    if (qemu && first === 0) signal(scene.pid, 'SIGCONT')
    for (const which of agentOf) scene[which].signal('SIGCONT')
    if (qemu && first === 1) signal(scene.pid, 'SIGCONT')
    return `for ${ms} ms`
  }

const wire =
  (draw: (random: SeededRandom) => WireFault, minMs: number, maxMs: number): Fault =>
  async ({ hosts, random }) => {
    const fault = draw(random)
    const ms = some(random, minMs, maxMs)
    hosts.spoil(fault)
    await delay(ms)
    hosts.spoil({ mode: 'pass' })
    return `${JSON.stringify(fault)} for ${ms} ms`
  }

/** Points that the primary passes with each checkpoint, and those of the standby. */
const primaryPoints = faultPoints.filter((point) => !/ack|apply|load/.test(point))
const standbyPoints = faultPoints.filter((point) => /ack|apply/.test(point))

/** A supervisor is started with a fault in it; when that has ended it, its agent starts the next one. */
const faulty =
  (which: 'from' | 'to', points: readonly FaultPoint[]): Fault =>
  async (scene) => {
    const { random } = scene
    const host = scene[which]
    const action = (['kill', 'kill', 'stop', 'throw'] as const)[random.integer(0, 3)]
    const fault = `${points[random.integer(0, points.length - 1)]}:${random.integer(1, 60)}=${action}`
    await restartAfter(host, some(random, 0, 300), fault)
    const limit = delay(action === 'kill' ? 8_000 : some(random, 3_000, 5_000), undefined, { ref: false })
    await Promise.race([untilExited(host.supervisors), limit])
    host.signal('SIGCONT')
    // A fault that was not met in time, since the roles have changed, must not come up in a later run.
    if (action !== 'throw') await restartAfter(host, 0)
    return `${host.name}: ${fault}`
  }

export const faults: Readonly<Record<string, Fault>> = {
  'kill QEMU': async ({ pid }) => {
    signal(pid, 'SIGKILL')
    return `process ${pid}`
  },
  'kill the primary agent': restart('from', 'SIGKILL', 'agent'),
  'kill the standby agent': restart('to', 'SIGKILL', 'agent'),
  'kill the primary supervisor': killSupervisor('from'),
  'kill the standby supervisor': killSupervisor('to'),
  'kill all but the guest on the primary': restart('from', 'SIGKILL', 'all'),
  'kill all but the guest on the standby': restart('to', 'SIGKILL', 'all'),
  'host death': async ({ guest, from, to, pid, random }) => {
    const order = random.integer(0, 1)
    if (order === 0) signal(pid, 'SIGKILL')
    const killed = from.endAll('SIGKILL')
    if (order === 1) signal(pid, 'SIGKILL')
    await killed
    await guest.runsOn(to)
    await delay(some(random, 0, 1_000))
    await from.start()
    return order === 0 ? 'QEMU first' : 'agent first'
  },
  // What `reboot` does: the agent is told to stop, then the guest's process dies, while the agent stops or some time later.
  'orderly stop of the host': async ({ guest, from, to, pid, random }) => {
    const ms = some(random, 0, 3_000)
    const stopped = from.endAll('SIGTERM')
    await Promise.race([stopped, delay(ms)])
    const orderly = !from.running
    signal(pid, 'SIGKILL')
    await stopped
    await guest.runsOn(to)
    await delay(some(random, 0, 1_000))
    await from.start()
    return `QEMU ${orderly ? 'after its agent' : `${ms} ms after the agent was told`}`
  },
  'orderly restart of the primary agent': restart('from', 'SIGTERM', 'agent'),
  'orderly restart of the standby agent': restart('to', 'SIGTERM', 'agent'),
  'orderly stop of all but the guest on the primary': restart('from', 'SIGTERM', 'all'),
  'orderly stop of all but the guest on the standby': restart('to', 'SIGTERM', 'all'),
  'link down': async ({ hosts, from, to, random }) => {
    const host = random.integer(0, 1) === 0 ? from : to
    const ms = some(random, 200, 3_000)
    await hosts.link(host, 'down')
    await delay(ms)
    await hosts.link(host, 'up')
    return `of ${host.name} for ${ms} ms`
  },
  'packets dropped': async ({ hosts, from, to, random }) => {
    const host = [undefined, from, to][random.integer(0, 2)]
    const ms = some(random, 200, 3_000)
    await hosts.drop(host)
    await delay(ms)
    await hosts.undrop()
    return `from ${host?.name ?? 'both'} for ${ms} ms`
  },
  'connections cut': wire(() => ({ mode: 'cut' }), 0, 100),
  'data delayed': wire((random) => ({ mode: 'delay', ms: random.integer(10, 800) }), 500, 3_000),
  'data throttled': wire((random) => ({ mode: 'throttle', bytesPerMs: random.integer(1, 400) }), 500, 3_000),
  'data swallowed': wire(() => ({ mode: 'swallow' }), 100, 1_500),
  'data truncated': wire(() => ({ mode: 'truncate' }), 200, 200),
  'data corrupted': wire(() => ({ mode: 'corrupt' }), 200, 200),
  'stop the primary agent': stop(['from'], false),
  'stop the standby agent': stop(['to'], false),
  'stop QEMU': stop([], true),
  'stop the primary host': stop(['from'], true),
  'stop both agents': stop(['from', 'to'], false),
  'the primary has no room': async ({ hosts, from }) => {
    await hosts.fill(from, 1_000)
    return from.name
  },
  'the standby has no room': async ({ hosts, to }) => {
    await hosts.fill(to, 1_000)
    return to.name
  },
  'fault point on the primary': faulty('from', primaryPoints),
  'fault point on the standby': faulty('to', standbyPoints),
  'killed after the takeover': async ({ guest, from, to, pid, random }) => {
    await restartAfter(to, 0, 'after-load=kill')
    await guest.whole(from, to, performance.now() + healMs)
    await delay(some(random, 0, 500))
    const { supervisors } = to
    signal(pid, 'SIGKILL')
    await Promise.race([untilExited(supervisors), delay(10_000, undefined, { ref: false })])
    return to.name
  },
}
export const faultKinds = Object.keys(faults)

export function signal(pid: number, what: NodeJS.Signals): void {
  try {
    process.kill(pid, what)
  } catch {
    // Superseded, or dead already.
  }
}
