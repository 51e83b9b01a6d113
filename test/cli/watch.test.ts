/** `status --watch`: it looks again and again, goes on while no agent answers, and ends by an interrupt or with its reader. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type EphemeralAgent, startEphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { exitStatus } from '../../src/errors.ts'
import { mainFile, subpage } from '../support/subpage.ts'

let folder: string
let state: string
const agents: EphemeralAgent[] = []
const children: ChildProcess[] = []
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-watch-'))
  state = join(folder, 'state')
})
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
  await Promise.all(agents.splice(0).map((agent) => agent.end()))
  rmSync(folder, { recursive: true })
})

async function start(): Promise<EphemeralAgent> {
  const agent = await startEphemeralAgent({ stateDirectory: state, host: 'watched' })
  agents.push(agent)
  return agent
}

function watch(command: string, args: string[]) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  children.push(child)
  let out = ''
  child.stdout.setEncoding('utf8').on('data', (text) => {
    out += text
  })
  return { child, out: () => out, lines: () => out.split('\n').slice(0, -1) }
}

const line = (...more: string[]) => [mainFile, 'status', '--watch', '--state', state, ...more]

test('goes on through the end of an agent and the start of the next, until it is interrupted', async () => {
  const agent = await start()
  const { child, lines } = watch(process.execPath, line('--json'))
  const said = () => lines().map((text) => JSON.parse(text))
  const last = () => said().at(-1)
  await expect.poll(() => said().length).toBeGreaterThan(1)
  expect(last()).toMatchObject({ host: 'watched', guests: [] })
  const ended = once(agent.process, 'exit')
  agent.process.kill('SIGKILL')
  await ended
  await expect.poll(last).toMatchObject({ code: 'AGENT_UNREACHABLE', message: expect.stringMatching(/\w/) })
  const next = await start()
  await expect.poll(last).toMatchObject({ host: 'watched', pid: next.process.pid })
  const times = said().map(({ time }) => Date.parse(time))
  // A second each, and what a busy machine adds.
  for (const [n, time] of times.slice(1).entries()) expect(time - times[n]!).toBeGreaterThan(900)
  child.kill('SIGINT')
  expect((await once(child, 'exit'))[0]).toBe(exitStatus.interrupted)
})

test('ends with its reader', async () => {
  await start()
  const { child, lines } = watch(process.execPath, line())
  await expect.poll(() => lines().length).toBeGreaterThan(1)
  expect(lines()[0]).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/)
  expect(lines().join('')).not.toContain('\x1b')
  const ended = once(child, 'exit')
  child.stdout!.destroy()
  expect((await ended)[0]).toBe(exitStatus.ok)
})

test('a terminal is cleared at each look', async () => {
  await start()
  const { out } = watch('script', [
    '-qec',
    [process.execPath, ...line()].map((word) => `'${word}'`).join(' '),
    '/dev/null',
  ])
  const looks = () => out().split('\x1b[H\x1b[J').slice(1)
  await expect.poll(() => looks().length).toBeGreaterThan(1)
  for (const look of looks().slice(0, -1)) expect(look).toMatch(/^\d{4}-\d\d-\d\d .*\r\nhost watched/)
})

test('what is wrong from the start ends it', async () => {
  expect(await subpage(line().slice(1))).toMatchObject({
    out: '',
    said: expect.stringMatching(/AGENT_UNREACHABLE/),
  })
})
