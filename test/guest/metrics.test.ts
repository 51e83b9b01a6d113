/**
 * A real Prometheus scrapes the agents of a protected guest over TCP, with the token, and knows of the guest what `status` says; and
 * what the agents answer about it is what docs/openapi.json describes.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import type { Finding } from '../../src/cli/doctor/finding.ts'
import { perform } from '../../src/cli/perform.ts'
import { freePort } from '../support/free-port.ts'
import { Hosts, idle, protect, until } from '../support/hosts.ts'
import { answerFaults } from '../support/openapi.ts'

const hosts = new Hosts()
afterAll(() => hosts[Symbol.asyncDispose]())

test('prometheus learns of both sides of a pair what their agents say', async () => {
  const token = join(hosts.directory, 'token')
  writeFileSync(token, 'a-token-of-thirty-two-characters-and-more\n', { mode: 0o600 })
  const ports = [await freePort(), await freePort(), await freePort()]
  const add = (host: string, port: number | undefined, env: Record<string, string> = {}) =>
    hosts.add(host, { SUBPAGE_API_LISTEN: `127.0.0.1:${port}`, SUBPAGE_API_TOKEN_FILE: token, ...env })
  // The clock of the second host is an hour ahead.
  const ahead = 'const now = Date.now; Date.now = () => now() + 3_600_000'
  const [alpha, beta]: EphemeralAgent[] = await Promise.all([
    add('alpha', ports[0]),
    add('beta', ports[1], { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(ahead)}` }),
  ])
  await alpha!.client.run({ name: 'web', ...idle })
  await protect(alpha!, 'web', beta!, { suspicionMs: 10_000 })

  const folder = join(hosts.directory, 'prometheus')
  mkdirSync(folder)
  const config = {
    global: { scrape_interval: '500ms', scrape_timeout: '500ms' },
    scrape_configs: [
      {
        job_name: 'subpage',
        authorization: { credentials_file: token },
        static_configs: [{ targets: [`127.0.0.1:${ports[0]}`, `127.0.0.1:${ports[1]}`] }],
      },
    ],
  }
  writeFileSync(join(folder, 'prometheus.yml'), JSON.stringify(config))
  const address = `127.0.0.1:${ports[2]}`
  const prometheus = spawn(
    'prometheus',
    [
      `--config.file=${join(folder, 'prometheus.yml')}`,
      `--storage.tsdb.path=${join(folder, 'data')}`,
      `--web.listen-address=${address}`,
    ],
    { stdio: 'ignore' },
  )
  try {
    await once(prometheus, 'spawn')
    /** Value by target, of an expression. */
    const query = async (expression: string): Promise<Record<string, number>> => {
      const answer = await fetch(`http://${address}/api/v1/query?query=${encodeURIComponent(expression)}`)
      const { data } = (await answer.json()) as {
        data: { result: { metric: { instance: string }; value: [number, string] }[] }
      }
      return Object.fromEntries(
        data.result.map(({ metric, value }) => [
          metric.instance === `127.0.0.1:${ports[0]}` ? 'alpha' : 'beta',
          Number(value[1]),
        ]),
      )
    }
    const safe = 'subpage_guest_safe{guest="web"}'
    // It does not listen yet.
    await expect.poll(() => query(safe).catch(() => ({}))).toEqual({ alpha: 1, beta: 1 })
    expect(await query('subpage_guest_role{guest="web",role="Standby"}')).toEqual({ alpha: 0, beta: 1 })
    // Checkpoints go on, and the histogram has all of them.
    await expect.poll(async () => (await query('subpage_guest_pause_seconds_count')).alpha).toBeGreaterThan(5)
    const same = 'subpage_guest_pause_seconds_count == bool subpage_guest_checkpoints_total'
    expect((await query(same)).alpha).toBe(1)
    expect((await query('subpage_guest_lag_seconds')).alpha).toBeLessThan(10)

    const { client } = alpha!
    const stream = await client.startWatch('web', { intervalMs: 200, subIntervals: 4, budget: 0.1 })
    const described = {
      status: [await client.status(), await beta!.client.status()],
      guest: [await client.guest('web'), await beta!.client.guest('web')],
      verify: [await client.verify('web')],
      recentEvents: [await client.recentEvents(), await beta!.client.recentEvents()],
      startWatch: [(await stream.next()).value],
      memoryMap: [await client.memoryMap('web'), await beta!.client.memoryMap('web')],
      workingSets: [await client.workingSets('web'), await beta!.client.workingSets('web')],
    }
    await stream.return(undefined)
    for (const [name, values] of Object.entries(described))
      for (const value of values) expect(answerFaults(name, value), name).toEqual([])

    // The other agent is asked, too: it is one of this machine.
    const doctor = async (agent = alpha!) => {
      let out = ''
      const argv = ['doctor', 'web', '--state', agent.stateDirectory, '--json']
      const status = await perform(argv, { out: { write: (text) => (out += text) }, err: process.stderr })
      const { findings } = JSON.parse(out) as { findings: Finding[] }
      const [code] = findings.map((found) => found.code)
      return { status, code, ids: findings.map(({ severity, id }) => `${severity} ${id}`) }
    }
    const well = await doctor()
    expect(well.status).toBe(0)
    expect(well.ids.filter((id) => /critical|peer-unknown|not-verified|clocks/.test(id))).toEqual([
      'warning clocks-differ',
    ])

    expect((await doctor(beta)).ids.filter((id) => /peer-unknown|peer-has-none/.test(id))).toEqual([])

    await beta!.client.remove('web', true)
    await until(alpha!, 'web', ({ state }) => state !== 'Protected')
    await expect.poll(async () => (await query(safe)).alpha).toBe(0)
    const ill = await doctor()
    expect(ill.status).toBe(3)
    expect(ill.ids[0]).toMatch(/^critical (connecting|seeding)$/)
    expect(ill.ids[0] === 'critical seeding' || ill.code !== undefined).toBe(true)
  } finally {
    prometheus.kill('SIGKILL')
    await once(prometheus, 'exit')
  }
})
