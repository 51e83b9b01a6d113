/** Pages of a process that runs: evicted while it stands still, back when it touches them, whoever serves. */
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { makeOwnedDirectory } from '../../src/agent/owned-directory.ts'
import { readPager, startPager, stopPager } from '../../src/density/pager.ts'
import { Store } from '../../src/density/store.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { openTracker, probeUserfault } from '../../src/tracking/tracker.ts'
import { type Victim, Victims } from '../tracking/victim.ts'

const pages = 512
const all = PageRanges.all(pages)
const available = probeUserfault().available

let victims: Victims
const cleanups: (() => void)[] = []
beforeAll(() => {
  victims = new Victims()
})
afterEach(async () => {
  await victims.clear()
  for (const cleanup of cleanups.splice(0).reverse()) cleanup()
})
afterAll(() => victims.close())

function openStore(directory: string): Store {
  const store = Store.open({ directory, swap: join(directory, 'swap'), pagesMax: 4096, indexPages: 1024 })
  cleanups.push(() => store.close())
  return store
}

/** A process whose memory is evicted, and what it ought to hold. */
async function evicted() {
  const directory = makeOwnedDirectory('subpage-test-pager-', '/dev/shm')
  cleanups.push(() => rmSync(directory, { recursive: true }))
  const victim = await victims.start({ pages })
  const content = Buffer.alloc(pages * 4096)
  for (let page = 0; page < pages; page++) {
    // Identical, similar, filled, packable; every eighth page never holds anything.
    if (page % 8 === 0) continue
    const kind = page % 4
    content.fill(kind === 0 ? page : `row ${kind} `, page * 4096, (page + 1) * 4096)
    if (kind === 2) content.write(`page ${page}`, page * 4096 + 700)
    if (kind === 3)
      for (let i = 0; i < 4096; i++) content[page * 4096 + i] = Math.imul(i + page, 2_654_435_761) >>> 23
  }
  for (let page = 0; page < pages; page++)
    if (page % 8 !== 0) await overwrite(victim, page, content.subarray(page * 4096, (page + 1) * 4096))
  const store = openStore(directory)
  const guest = store.attach('victim', victim.target.ramPath, 1)
  startPager(store, guest, target(victim))
  await store.evict(guest, all, { patch: true })
  return { directory, victim, content, store, guest }
}

/** Through the file: the process sees the same memory. */
async function overwrite(victim: Victim, page: number, bytes: Uint8Array): Promise<void> {
  const { open } = await import('node:fs/promises')
  const file = await open(victim.target.ramPath, 'r+')
  await file.write(bytes, 0, bytes.length, page * 4096)
  await file.close()
}

const target = ({ target: of, statusPath }: Victim) => ({ ...of, shimStatusPath: statusPath })
const blocks = (victim: Victim) => statSync(victim.target.ramPath).blocks

/** The same as the victim's `write`: adds one to a byte of each page. */
function increment(content: Buffer): void {
  for (let page = 0; page < pages; page++) content[page * 4096 + page]! += 1
}

if (available) {
  test('what was evicted comes back on access, and memory that never held anything is zero', async () => {
    const { victim, content, store, guest } = await evicted()
    expect(blocks(victim)).toBe(0)
    const split = store.split(guest)
    expect(split).toMatchObject({ pages, resident: 0, holes: pages / 8 })
    expect(split.shared).toBeGreaterThan(50)
    expect(split.patched).toBeGreaterThan(50)
    // A system call of the process meets the same faults.
    await victim.run('load 0 3')
    await victim.run(`write 0 ${pages}`)
    increment(content)
    expect(Buffer.compare(readFileSync(victim.target.ramPath), content)).toBe(0)
    const stats = readPager(store, guest)!
    const served = Object.values(stats.served).reduce((sum, { pages: count }) => sum + count, 0)
    expect([served, stats.zeros, stats.retries]).toEqual([(pages * 7) / 8, pages / 8, 0])
    expect(stats.served.patched.us!.p50).toBeGreaterThan(0)
    expect(store.totals).toMatchObject({ objects: 0, poolBytes: 0 })
  })

  test('a page that comes back unwritten counts as unwritten', async () => {
    const { victim, content } = await evicted()
    const tracker = openTracker(target(victim), 'userfault')
    cleanups.push(() => tracker.close())
    await victim.run(`load 0 ${pages}`)
    tracker.harvest()
    await victim.run('write 8 1')
    expect([...tracker.harvest()]).toEqual([{ first: 8, count: 1 }])
    content[8 * 4096 + 8]! += 1
    expect(Buffer.compare(readFileSync(victim.target.ramPath), content)).toBe(0)
  })

  test('when nobody serves, an access waits for the next who does, and sees the right bytes', async () => {
    const { directory, victim, content, store } = await evicted()
    store.close()
    const waiting = victim.run(`write 0 ${pages}`)
    const done = Promise.race([
      waiting.then(() => 'answered'),
      new Promise((r) => setTimeout(r, 100, 'waits')),
    ])
    expect(await done).toBe('waits')
    const next = openStore(directory)
    const guest = next.attach('victim', victim.target.ramPath, 1)
    startPager(next, guest, target(victim))
    await waiting
    increment(content)
    expect(Buffer.compare(readFileSync(victim.target.ramPath), content)).toBe(0)
  })

  test('it ends only when every page is back; then the process goes on alone', async () => {
    const { victim, content, store, guest } = await evicted()
    expect(stopPager(store, guest)).toBe(false)
    await store.fetch(guest, all)
    expect(stopPager(store, guest)).toBe(true)
    expect(readPager(store, guest)).toBeUndefined()
    await store.forget('victim')
    await victim.run(`write 0 ${pages}`)
    increment(content)
    expect(Buffer.compare(readFileSync(victim.target.ramPath), content)).toBe(0)
  })

  test('the end of the process is noticed, and what was stored for it can go', async () => {
    const { victim, store, guest } = await evicted()
    await victim.kill()
    await expect.poll(() => readPager(store, guest)?.ended).toBe(true)
    expect(stopPager(store, guest)).toBe(true)
    await store.forget('victim')
    expect(store.totals.objects).toBe(0)
  })
}

test('a process whose faults cannot be served is refused with the reason', async () => {
  const victim = await victims.start({ pages: 8 })
  writeFileSync(victim.statusPath, JSON.stringify({ tracking: 'ok', kind: 'user', uffd: 5 }))
  const directory = makeOwnedDirectory('subpage-test-pager-', '/dev/shm')
  cleanups.push(() => rmSync(directory, { recursive: true }))
  const store = openStore(directory)
  const guest = store.attach('victim', victim.target.ramPath, 1)
  expect(() => startPager(store, guest, target(victim))).toThrow(
    expect.objectContaining({ code: 'TRACKER_UNAVAILABLE', message: expect.stringContaining('root') }),
  )
})
