/**
 * A standby whose image is held densely, at full pressure: all that no delta is about to touch leaves at once. Memory runs
 * out, the keeper dies, what is stored is damaged; the image stays equal, and in the end the guest goes on from it.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { judge } from '../../src/agent/demo.ts'
import type { EphemeralAgent } from '../../src/agent/ephemeral-agent.ts'
import { type Console, consoleAt } from '../../src/qemu/demo-guest.ts'
import { Hosts, protect, startVictim, until } from '../support/hosts.ts'

const hosts = new Hosts()
// A /dev/shm of its own, that can be filled.
const ownShm = ['unshare', '-m', 'sh', '-c', 'mount -t tmpfs -o size=260m none /dev/shm && exec "$0" "$@"']
const full = { recentMs: 0, coldMs: 0, budget: 1 }
let [a, b] = [] as unknown as [EphemeralAgent, EphemeralAgent]
let console: Console

beforeAll(async () => {
  ;[a, b] = await Promise.all([hosts.add('a'), hosts.add('b', {}, undefined, ownShm)])
  console = (await startVictim(a, 'spare')).console
  await protect(a, 'spare', b)
})
afterAll(() => hosts[Symbol.asyncDispose]())

const density = async () => (await b.client.density()).guests[0]!
const untilStored = (pagesMin: number) =>
  expect
    .poll(
      async () => {
        const { pages, resident, holes } = (await density())?.split ?? { pages: 0, resident: 0, holes: 0 }
        return pages - resident - holes
      },
      { timeout: 60_000 },
    )
    .toBeGreaterThan(pagesMin)
/** Epochs go on, and the image is equal to the guest. */
const equal = async () => {
  const before = (await a.client.guest('spare')).epochs?.checkpoints ?? 0
  await until(
    a,
    'spare',
    ({ state, epochs }) => state === 'Protected' && (epochs?.checkpoints ?? 0) > before + 10,
  )
  expect(await a.client.verify('spare')).toMatchObject({ equal: true })
}

/** The /dev/shm of b. */
const shm = async () => `/proc/${(await b.client.guest('spare')).pid}/root/dev/shm`

test('epochs go on while the image is dense, and it stays equal', async () => {
  await b.client.densityOn('spare', full)
  await untilStored(5_000)
  await equal()
  const { split, standby, savedBytes, pager } = await density()
  const { filled, shared, patched, packed, swapped, whole } = split
  expect(filled + shared + patched + packed + swapped + whole + split.resident + split.holes).toBe(
    split.pages,
  )
  expect({ standby, ended: pager!.ended }).toEqual({ standby: true, ended: false })
  expect(savedBytes).toBeGreaterThan(0)
  expect((await a.client.guest('spare')).epochs).toMatchObject({ failed: 0 })
})

test('memory runs out: the primary hears of it, and goes on when there is room', async () => {
  const filler = `${await shm()}/full`
  const fill = async () => {
    // What is evicted makes room again, which is taken again.
    const dd = ['if=/dev/zero', `of=${filler}`, 'bs=64k', 'oflag=append', 'conv=notrunc']
    await once(spawn('dd', dd, { stdio: 'ignore' }), 'exit')
    return (await a.client.guest('spare')).state
  }
  try {
    await expect.poll(fill, { timeout: 60_000, interval: 10 }).not.toBe('Protected')
  } finally {
    rmSync(filler)
  }
  await equal()
})

test('what is stored is damaged: a new image takes its place, as dense; off brings all of it back', async () => {
  const { pid } = await b.client.guest('spare')
  await untilStored(5_000)
  const directory = await shm()
  const store = readdirSync(directory).find((name) => name.endsWith('-density'))
  const pool = `${directory}/${store}/store/pool`
  // What it takes, and no more: there must be room for the new image.
  writeFileSync(pool, Buffer.alloc(statSync(pool).blocks * 512, 0x5a), { flag: 'r+' })
  // Looks at all of it; whoever needs one of those pages finds out as well.
  await a.client.verify('spare').catch(() => undefined)
  await until(b, 'spare', (status) => status.pid !== pid)
  await untilStored(5_000)
  await equal()
  await b.client.densityOff('spare')
  expect((await b.client.density()).guests).toEqual([])
  await equal()
  await b.client.densityOn('spare', full)
})

test('the keeper is killed, and then the guest: it goes on from the dense image', async () => {
  await untilStored(5_000)
  const { keeper } = await b.client.density()
  process.kill(keeper!.pid, 'SIGKILL')
  await equal()
  expect((await b.client.density()).keeper!.pid).not.toBe(keeper!.pid)
  await untilStored(5_000)
  process.kill((await a.client.guest('spare')).pid!, 'SIGKILL')
  const { takeover, console: log } = await until(b, 'spare', ({ takeover }) => takeover !== null)
  globalThis.console.log(`took over from a dense image in ${takeover!.ms.toFixed(1)} ms`)
  // While it runs its memory comes back; then its protection goes on, the other way round.
  expect(await judge(console, consoleAt(log), takeover!.consoleBytes)).toMatchObject({
    continued: true,
    lost: 0,
    verified: true,
  })
  await until(b, 'spare', ({ state }) => state === 'Protected')
  expect(await b.client.density()).toMatchObject({ guests: [], keeper: null })
  expect(await b.client.verify('spare')).toMatchObject({ equal: true })
})
