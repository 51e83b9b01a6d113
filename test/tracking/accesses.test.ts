/**
 * Forgetting accesses and reading them back: exact to the page, and without harm: no content, no mark of a written page and
 * no other memory is lost, whatever happens at the same time.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { addon } from '../../src/memory/native.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { type AccessTracker, openAccesses } from '../../src/tracking/accesses.ts'
import { ForgetChannel } from '../../src/tracking/forget.ts'
import { readShimStatus } from '../../src/tracking/shim.ts'
import { openTracker, probeUserfault } from '../../src/tracking/tracker.ts'
import { type VictimOptions, Victims } from './victim.ts'

const pages = 2048
const all = PageRanges.all(pages)
const available = probeUserfault().available
const runs = (...pairs: [first: number, count: number][]) => PageRanges.of(pairs)
const list = (ranges: PageRanges) => [...ranges].map(({ first, count }) => [first, count])
const unavailable = expect.objectContaining({ code: 'TRACKER_UNAVAILABLE' })

let victims: Victims
const opened: AccessTracker[] = []
beforeAll(() => {
  victims = new Victims()
})
afterEach(async () => {
  for (const accesses of opened.splice(0)) accesses.close()
  await victims.clear()
})
afterAll(() => victims.close())

async function watched(options: Partial<VictimOptions> = {}) {
  const victim = await victims.start({ pages, ...options })
  const accesses = openAccesses(victim.target)
  opened.push(accesses)
  return { victim, accesses }
}

/** Where the kernel cannot, everything says so; the other tests need one that can. */
test('what this kernel can do is known before anything is forgotten', async () => {
  const victim = await victims.start({ pages })
  if (!available) return expect(() => openAccesses(victim.target)).toThrow(unavailable)
  expect(addon.forgetProbe()).toBe('')
  expect(addon.forgetFaultNs()).toBeGreaterThan(50)
  expect(readShimStatus(victim.statusPath)?.forget).toBe('on')
})

if (available) {
  test('names exactly the pages that were read or written since they were forgotten', async () => {
    const { victim, accesses } = await watched()
    await victim.run(`write 0 ${pages}`)
    expect(list(accesses.accessed())).toEqual([[0, pages]])
    expect(accesses.arm(all)).toBe(true)
    expect(await accesses.forget(all)).toMatchObject({ pages, ns: expect.any(Number) })
    expect(list(accesses.accessed())).toEqual([])
    await victim.run('load 3 100')
    await victim.run('write 600 1000')
    await victim.run(`kernel ${pages - 1} 1`)
    expect(list(accesses.accessed())).toEqual([
      [3, 100],
      [600, 1000],
      [pages - 1, 1],
    ])
    expect(list(accesses.written(all))).toEqual([
      [600, 1000],
      [pages - 1, 1],
    ])
    await accesses.forget(runs([50, 10], [700, 1]))
    expect(list(accesses.accessed())).toEqual([
      [3, 47],
      [60, 43],
      [600, 100],
      [701, 899],
      [pages - 1, 1],
    ])
  })

  test('forgets more runs than one request holds', { timeout: 30_000 }, async () => {
    const many = 40_000
    const { victim, accesses } = await watched({ pages: many })
    await victim.run(`load 0 ${many}`)
    await accesses.forget(runs(...Array.from({ length: many / 2 }, (_, i) => [2 * i, 1] as [number, number])))
    const left = accesses.accessed()
    expect([left.pageCount, left.has(0), left.has(1), left.has(many - 1)]).toEqual([
      many / 2,
      false,
      true,
      true,
    ])
  })

  test('a tracker of written pages beside it misses nothing, however often is forgotten while pages are written', async () => {
    const many = 65_536
    const { victim, accesses } = await watched({ pages: many })
    const tracker = openTracker(victim.target, 'userfault')
    tracker.harvest()
    expect(accesses.arm(all)).toBe(false)
    await victim.run('sweep')
    let union = PageRanges.empty
    for (let round = 0; round < 30; round++) {
      await accesses.forget(PageRanges.all(many))
      union = union.union(tracker.harvest())
    }
    const swept = Number(await victim.run('stop'))
    await accesses.forget(PageRanges.all(many))
    union = union.union(tracker.harvest())
    expect(list(runs([0, swept]).subtract(union))).toEqual([])
    // Pages that nobody touched are not named either: those that were never there before count once.
    await accesses.forget(PageRanges.all(many))
    expect(tracker.harvest().pageCount).toBe(0)
    await victim.run('write 512 512')
    await victim.run('write 5000 3')
    await accesses.forget(PageRanges.all(many))
    expect(list(tracker.harvest())).toEqual([
      [512, 512],
      [5000, 3],
    ])
    tracker.close()
  })

  test('changes no byte of the memory', async () => {
    const { victim, accesses } = await watched()
    await victim.run(`write 0 ${pages}`)
    await victim.run(`fill 12345 100000`)
    const before = readFileSync(victim.target.ramPath)
    for (let round = 0; round < 5; round++) await accesses.forget(all)
    await victim.run(`load 0 ${pages}`)
    expect(readFileSync(victim.target.ramPath).equals(before)).toBe(true)
  })

  test('what was mapped in place of guest RAM is not touched', async () => {
    const { victim } = await watched()
    expect(await victim.run('replace')).toBe(String(pages * 4096))
    const channel = ForgetChannel.open(victim.target.forgetPath)
    await expect(channel.forget(all)).rejects.toThrow(unavailable)
    expect(await victim.run('replace')).toBe(String(pages * 4096))
    channel.close()
  })

  test('garbled requests harm nobody, and the next one works', async () => {
    const { victim, accesses } = await watched()
    await victim.run(`load 0 ${pages}`)
    const channel = addon.forgetOpen(victim.target.forgetPath)
    const status = new Float64Array(5)
    const wild = new Uint32Array([0xffff_fff0, 0xffff_ffff, pages - 1, 5000, 7, 0])
    const number = addon.forgetPost(channel, wild, 3)
    await expect
      .poll(() => {
        addon.forgetStatus(channel, status)
        return status[1]
      })
      .toBe(number)
    expect(status[2]).not.toBe(0)
    addon.forgetClose(channel)
    await accesses.forget(all)
    expect(accesses.accessed().pageCount).toBe(0)
    expect(await victim.run(`load 0 ${pages}`)).toBe('0')
    expect(() => addon.forgetPost(channel, wild, 3)).toThrow(TypeError)
    expect(() => addon.forgetStatus({} as never, status)).toThrow(TypeError)
  })

  test('says what is missing: no channel, one that is too short, a process that has ended', async () => {
    const victim = await victims.start({ pages })
    expect(() => openAccesses({ ...victim.target, forgetPath: '/nonexistent' })).toThrow(unavailable)
    writeFileSync(victim.target.forgetPath.replace('.forget', '.short'), 'x')
    const short = victim.target.forgetPath.replace('.forget', '.short')
    expect(() => ForgetChannel.open(short)).toThrow(unavailable)
    const accesses = openAccesses(victim.target)
    opened.push(accesses)
    await victim.kill()
    expect(() => accesses.accessed()).toThrow(expect.objectContaining({ code: 'GUEST_DIED' }))
  })
}
