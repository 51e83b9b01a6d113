/**
 * Guests whose memory is held densely, at full pressure: whatever is known leaves at once. Their victims check themselves,
 * while the keeper and the agent are killed and memory runs out, and never see a wrong byte.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import {
  askVictim,
  type Console,
  consoleLength,
  typeLine,
  untilConsole,
  victimDamage,
  victimLines,
} from '../../src/qemu/demo-guest.ts'
import { Hosts, killHost, startVictim } from '../support/hosts.ts'
import { mainFile, subpage } from '../support/subpage.ts'

const hosts = new Hosts()
const state = join(hosts.directory, 'a')
// A /dev/shm of its own, that can be filled.
const ownShm = ['unshare', '-m', 'sh', '-c', 'mount -t tmpfs -o size=420m none /dev/shm && exec "$0" "$@"']
const swap = join(hosts.directory, 'swap')
const swapEnvironment = { SUBPAGE_SWAP: swap, SUBPAGE_SWAP_AFTER: '1s' }
const full = { recentMs: 0, coldMs: 0, budget: 1, trustDomain: 'victims' }
const names = ['one', 'two']
const consoles: Console[] = []
let a: EphemeralAgent
let qemuPid = 0

beforeAll(async () => {
  a = await hosts.add('a', swapEnvironment, undefined, ownShm)
  for (const name of names) {
    const { status, console } = await startVictim(a, name)
    consoles.push(console)
    qemuPid = status.pid!
  }
})
afterAll(() => hosts[Symbol.asyncDispose]())

const density = async (name = 'one') =>
  (await a.client.density()).guests.find((guest) => guest.name === name)!
const storedPages = async () => {
  const { pages, resident, holes } = (await density()).split
  return pages - resident - holes
}
const servedPages = async () =>
  Object.values((await density()).pager!.served).reduce((sum, { pages }) => sum + pages, 0)
const keeperPid = async () => (await a.client.density()).keeper!.pid

/** Both go on stepping, and find all their memory as they left it. */
async function bothAreWhole(): Promise<void> {
  for (const console of consoles) {
    expect(await askVictim(console, 60_000)).toBe(true)
    const [before] = victimLines(readFileSync(console.log, 'latin1')).slice(-1)
    await untilConsole(
      console,
      0,
      (text) => victimLines(text).find(({ step }) => step > before!.step),
      60_000,
    )
    expect(victimDamage(readFileSync(console.log, 'latin1'))).toBeUndefined()
  }
}

test('at full pressure no victim sees a wrong byte, and the accounts add up', async () => {
  for (const name of names) await a.client.densityOn(name, full)
  await expect.poll(storedPages, { timeout: 60_000 }).toBeGreaterThan(5_000)
  await bothAreWhole()
  await expect.poll(servedPages, { timeout: 60_000 }).toBeGreaterThan(100)
  const { split, pager, savedBytes } = await density()
  const { filled, shared, patched, packed, swapped, whole } = split
  expect(filled + shared + patched + packed + swapped + whole + split.resident + split.holes).toBe(
    split.pages,
  )
  expect(shared).toBeGreaterThan(0)
  expect(pager).toMatchObject({ ended: false, reason: '' })
  expect(savedBytes).toBeGreaterThan(0)
  const shown = await subpage(['density', 'status', '--state', state])
  expect(shown).toMatchObject({ status: 0, said: '' })
  expect(shown.out).toMatch(/^one +victims +cold /m)
})

/** A file that only this asks for, and the sum of it. */
const coldFile = '/tmp/cold'
const coldPages = 2_048

/** Has the first guest run a command. @returns what it says before it ends */
async function run(command: string): Promise<() => Promise<string>> {
  const console = consoles[0]!
  const from = consoleLength(console)
  await typeLine(console, `run ${command}`)
  const ended = (text: string) => /([0-9a-f]{32}) {2}\/tmp/.exec(text)?.[1]
  return () => untilConsole(console, from, ended, 60_000)
}

test('pages are swapped and come back; a swap file that is damaged keeps the guest waiting, and no wrong byte is served', async () => {
  const fill = `dd if=/dev/urandom of=${coldFile} bs=4096 count=${coldPages} 2>/dev/null`
  const sum = await (await run(`${fill}; md5sum ${coldFile}`))()
  const swappedOut = async () => (await density()).split.swapped
  const swappedIn = async () => (await density()).pager!.served.swapped.pages
  await expect.poll(swappedOut, { timeout: 60_000 }).toBeGreaterThan(coldPages)
  // Nothing more leaves, and what is packed goes to the swap file: from then on nobody writes to it.
  for (const name of names)
    await a.client.densityOn(name, { ...full, recentMs: 3_600_000, coldMs: 3_600_000 })
  const packed = async () => {
    const { guests } = await a.client.density()
    return guests.reduce((total, { split }) => total + split.packed, 0)
  }
  await expect.poll(packed, { timeout: 60_000 }).toBe(0)
  // Half of it says something else, and half is gone.
  const good = readFileSync(swap)
  const half = good.subarray(0, good.length >> 1).map((byte) => ~byte)
  writeFileSync(swap, half, { flag: 'r+' })
  truncateSync(swap, half.length)
  const reason = async () => (await density()).pager!.reason
  const answer = await run(`md5sum ${coldFile}`)
  await expect.poll(reason, { timeout: 60_000 }).toBe('the swap file does not hold what was written to it')
  await expect(a.client.densityOff('one')).rejects.toThrow(expect.objectContaining({ code: 'STORE_DAMAGED' }))
  writeFileSync(swap, good, { flag: 'r+' })
  expect(await answer()).toBe(sum)
  expect(await swappedIn()).toBeGreaterThan(0)
  await expect.poll(reason, { timeout: 60_000 }).toBe('')
  await bothAreWhole()
  for (const name of names) await a.client.densityOn(name, full)
})

test('the keeper is killed: the next one goes on with what was stored', async () => {
  for (let round = 0; round < 3; round++) {
    const pid = await keeperPid()
    process.kill(pid, 'SIGKILL')
    await expect.poll(() => keeperPid().catch(() => pid), { timeout: 60_000 }).not.toBe(pid)
  }
  await bothAreWhole()
})

test('agent and supervisors are killed: guests go on without them, and the next ones find them dense', async () => {
  const pid = await keeperPid()
  await killHost(a)
  await bothAreWhole()
  a = await hosts.add('a', swapEnvironment, undefined, ['nsenter', '-t', String(qemuPid), '-m', '--'])
  expect(await keeperPid()).toBe(pid)
  await expect.poll(storedPages, { timeout: 60_000 }).toBeGreaterThan(1_000)
  await bothAreWhole()
})

test('memory runs out: pages wait or stay, and nothing is lost', async () => {
  const filler = `/proc/${qemuPid}/root/dev/shm/full`
  const putOff = async () => {
    // What is evicted makes room again, which is taken again.
    const dd = ['if=/dev/zero', `of=${filler}`, 'bs=64k', 'oflag=append', 'conv=notrunc']
    await once(spawn('dd', dd, { stdio: 'ignore' }), 'exit')
    const { guests, error } = await a.client.density()
    return error === ''
      ? guests.reduce((sum, { pager }) => sum + (pager?.retries ?? 0), 0)
      : Number.POSITIVE_INFINITY
  }
  try {
    await expect.poll(putOff, { timeout: 60_000, interval: 10 }).toBeGreaterThan(0)
  } finally {
    rmSync(filler)
  }
  await bothAreWhole()
})

test('what cannot be had together is refused by name; off brings everything back', async () => {
  expect(
    await subpage(['record', 'vm:one', '--for', '0.1s', '--state', state, '-o', join(state, 't')]),
  ).toMatchObject({ status: 1, said: expect.stringContaining('GUEST_DENSE') })
  expect(await subpage(['density', 'tune', 'one', '--target', '50%', '--state', state])).toMatchObject({
    status: 0,
  })
  expect((await density()).settings).toMatchObject({ targetBytes: 80 * 2 ** 20, trustDomain: 'victims' })
  await a.client.densityOff('one')
  expect((await a.client.density()).guests.map(({ name }) => name)).toEqual(['two'])
  await bothAreWhole()
  // A recording that reads the memory already ends, before pages leave it.
  const trace = join(hosts.directory, 'one.trace')
  const args = ['record', 'vm:one', '--for', '60s', '--epoch', '20ms', '--state', state, '-o', trace]
  const recording = spawn(
    'nsenter',
    ['-t', String(qemuPid), '-m', '--', process.execPath, mainFile, ...args],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  )
  let said = ''
  recording.stderr.setEncoding('utf8').on('data', (text) => {
    said += text
  })
  const ended = once(recording, 'exit')
  const begun = () => readdirSync(hosts.directory).some((file) => file.startsWith('one.trace'))
  await expect.poll(begun, { timeout: 60_000 }).toBe(true)
  await a.client.densityOn('one', full)
  expect(await ended).toEqual([1, null])
  expect(said).toContain('GUEST_DENSE')
  await expect.poll(storedPages, { timeout: 60_000 }).toBeGreaterThan(1_000)
  await bothAreWhole()
  for (const name of names) await a.client.remove(name)
  expect(await a.client.density()).toMatchObject({ guests: [], keeper: null })
})
