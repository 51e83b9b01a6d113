/**
 * What an agent takes of a processor while people look at its dashboard. The agent is a real one, and so are its answers to the viewers; the
 * supervisors of its guests are simulated by this process, one socket each, with figures that change: hundreds of real ones do not fit
 * into one machine.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { diskStatus } from '../src/agent/disk-status.ts'
import { type GuestStatus, unprotected } from '../src/agent/status.ts'
import { supervisorProtocol } from '../src/agent/supervisor/settings.ts'
import { guestFiles } from '../src/qemu/guest-files.ts'
import { release } from '../src/release.ts'
import { DurationStats } from '../src/replication/durations.ts'
import { freePort } from '../test/support/free-port.ts'
import { endAgent, Hosts, processorMs } from '../test/support/hosts.ts'
import type { BenchOptions } from './bench.ts'

const viewers = 3

export async function run({ tiny }: BenchOptions) {
  const guests = tiny ? 5 : 200
  const [settleMs, measuredMs] = tiny ? [1_000, 2_000] : [10_000, 30_000]
  await using hosts = new Hosts()
  const state = join(hosts.directory, 'a')
  const names = Array.from({ length: guests }, (_, index) => `guest-${index}`)
  const simulated = await Promise.all(names.map((name) => simulate(state, name)))
  const token = 'a-token-of-thirty-two-characters-and-more'
  const tokenFile = join(hosts.directory, 'token')
  writeFileSync(tokenFile, token, { mode: 0o600 })
  const port = await freePort()
  const agent = await hosts.add('a', {
    SUBPAGE_API_LISTEN: `127.0.0.1:${port}`,
    SUBPAGE_API_TOKEN_FILE: tokenFile,
  })
  const ending = new AbortController()
  const shown = { bytes: 0, pictures: 0 }
  const looking = Array.from({ length: viewers }, () =>
    look(`http://127.0.0.1:${port}/v1/status/stream`, token, ending.signal, shown),
  )
  try {
    await delay(settleMs)
    const alone = { ...shown }
    const [cpuMs, startedAt] = [processorMs(agent), performance.now()]
    await delay(measuredMs)
    const seconds = (performance.now() - startedAt) / 1000
    const cpuShare = (processorMs(agent) - cpuMs) / 1000 / seconds
    const found = (await agent.client.status()).guests.length
    const bytesPerSecond = (shown.bytes - alone.bytes) / seconds / viewers
    const picturesPerSecond = (shown.pictures - alone.pictures) / seconds / viewers
    const json = { guests: found, viewers, seconds, cpuShare, bytesPerSecond, picturesPerSecond }
    return {
      json,
      text: [
        `${found} guests, ${viewers} viewers, ${seconds.toFixed(0)} s`,
        `the agent takes ${(cpuShare * 100).toFixed(1)} % of a processor`,
        `a viewer gets ${picturesPerSecond.toFixed(2)} pictures and ${(bytesPerSecond / 2 ** 20).toFixed(2)} MiB a second`,
      ].join('\n'),
    }
  } finally {
    ending.abort()
    await Promise.all(looking)
    // It would ask each of them to end its guest.
    await endAgent(agent, 'SIGKILL')
    for (const server of simulated) {
      server.closeAllConnections()
      server.close()
    }
  }
}

/** Reads as a browser does, until the signal. */
async function look(
  url: string,
  token: string,
  signal: AbortSignal,
  shown: { bytes: number; pictures: number },
): Promise<void> {
  try {
    const answer = await fetch(url, { headers: { authorization: `Bearer ${token}` }, signal })
    for await (const chunk of answer.body!) {
      shown.bytes += chunk.length
      // One ends with an empty line.
      if (Buffer.from(chunk.subarray(-2)).toString() === '\n\n') shown.pictures++
    }
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

/** A supervisor that says of its guest what a real one does. */
async function simulate(state: string, name: string) {
  const files = guestFiles(state, name)
  mkdirSync(files.directory, { recursive: true, mode: 0o700 })
  writeFileSync(files.supervisor.settings, JSON.stringify({ protocol: supervisorProtocol }), { mode: 0o600 })
  const begin = (reply: ServerResponse, event?: object) => {
    reply.writeHead(200, { 'content-type': 'text/event-stream' })
    reply.write(event ? `data: ${JSON.stringify(event)}\n\n` : ':\n\n')
  }
  let looks = 0
  const server = createServer(({ url }, reply) => {
    if (url === '/v1/supervisor') begin(reply, { protocol: supervisorProtocol, release, pid: process.pid })
    else if (url === '/v1/events/stream') begin(reply)
    else reply.end(JSON.stringify({ guests: [statusOf(name, ++looks)] }))
  })
  await new Promise<void>((resolve) => server.listen(files.supervisor.socket, resolve))
  return server
}

const counted = new DurationStats().counted

function statusOf(name: string, looks: number): GuestStatus {
  const us = { p50: 2000 + (looks % 7), p99: 5000 + (looks % 11), max: 9000 }
  const bytes = looks * 100_000
  return {
    ...unprotected,
    ...{ name, role: 'Primary', state: 'Protected', reason: '', reasonCode: null, peer: '192.0.2.10:7475' },
    ...{ ramBytes: 2 ** 30, auxBytes: 0, accel: 'kvm', qemu: '7.2.22', pid: process.pid },
    ...{ console: '/run/subpage/console.log', consoleSocket: '/run/subpage/console.sock' },
    ...{
      firmware: null,
      vnc: null,
      shimMissing: null,
      generation: 1,
      arbiter: 'etcd:https://192.0.2.1:2379',
    },
    disks: [diskStatus({ name: 'root', bytes: 2 ** 33, path: `/var/lib/subpage/${name}.raw` }, false)],
    ...{ tracker: 'userfault', codec: 'masked', epochMs: 25, outputs: 'held', durability: 'memory' },
    memory: { shadow: 'full', shadowBytes: 2 ** 30, reducerBytes: 15e6 },
    hotPages: { now: 1000, faultsSaved: bytes, comparisons: looks },
    fence: { on: true, silenced: 0 },
    supervisor: { process: process.pid, ownBytes: 35 * 2 ** 20, loopDelayMs: 3 },
    committed: { epoch: looks * 40, consoleBytes: 0 },
    epochs: {
      ...{
        checkpoints: looks * 40,
        failed: 0,
        pauseUs: us,
        ownUs: us,
        harvestUs: us,
        stopFlushUs: us,
        commitUs: us,
        gapUs: us,
      },
      ...{ dirtyPages: bytes, changedLines: bytes, earlyPages: 0, earlyPagesAgain: 0, sharedCaptures: 0 },
      ...{ amplification: 9, lagMs: 20 + (looks % 5), durations: { pause: counted, commit: counted } },
      cost: { pauses: 0.08, faults: 0.01, outputWaitMs: 20 },
      bytes: { dirtyPages: bytes, changedLines: bytes, delta: bytes, sent: bytes, final: bytes },
    },
  }
}
