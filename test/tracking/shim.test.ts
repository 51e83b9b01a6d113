/** The shim in a small program: what it reports, what it leaves to children, and that it never breaks its host. */
import { execFileSync, spawnSync } from 'node:child_process'
import { closeSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { ForgetChannel } from '../../src/tracking/forget.ts'
import {
  describeShim,
  openUnnameable,
  readShimStatus,
  shimEnvironment,
  shimMissing,
  shimPath,
} from '../../src/tracking/shim.ts'
import { openTracker, probeUserfault } from '../../src/tracking/tracker.ts'
import { Victims } from './victim.ts'

let victims: Victims
const directory = mkdtempSync(join(tmpdir(), 'subpage-shim-'))
beforeAll(() => {
  victims = new Victims()
})
afterEach(() => victims.clear())
afterAll(async () => {
  await victims.close()
  rmSync(directory, { recursive: true })
})

test('reports the mapping that it registered, readable by its user only', async () => {
  const victim = await victims.start({ pages: 64 })
  const status = readShimStatus(victim.statusPath)
  const available = probeUserfault().available
  expect(status).toMatchObject({
    format: 1,
    pid: victim.pid,
    tracking: available ? 'ok' : 'failed',
    address: `0x${Number(await victim.run('address')).toString(16)}`,
    bytes: 64 * 4096,
    mappings: 1,
    guard: 'off',
  })
  expect(statSync(victim.statusPath).mode & 0o777).toBe(0o600)
  if (available) {
    // O_CLOEXEC is 02000000: children do not inherit it.
    const flags = /flags:\s+(\d+)/.exec(
      readFileSync(`/proc/${victim.pid}/fdinfo/${status?.uffd}`, 'utf8'),
    )?.[1]
    expect(Number.parseInt(flags ?? '', 8) & 0o2000000).not.toBe(0)
  }
})

test('counts every mapping of the RAM file', async () => {
  const victim = await victims.start({ pages: 64, layout: 'twice' })
  expect(readShimStatus(victim.statusPath)?.mappings).toBe(2)
})

test('appends the blocks that a program maps beside its RAM to the RAM file, and watches them', async () => {
  const environment = { SUBPAGE_AUX_RAM: 'on' }
  const victim = await victims.start({ pages: 64, layout: 'blocks', environment })
  expect(readShimStatus(victim.statusPath)).toMatchObject({ mappings: 3, aux: [2 * 4096, 3 * 4096] })
  const { ramPath } = victim.target
  expect(statSync(ramPath).size).toBe(69 * 4096)
  const tracker = openTracker({ ...victim.target, ramPages: 69 }, 'auto')
  try {
    tracker.harvest()
    for (const page of [3, 65, 66, 68]) await victim.run(`write ${page} 1`)
    expect([...tracker.harvest().pages()]).toEqual(
      tracker.name === 'userfault' ? [3, 65, 66, 68] : expect.arrayContaining([3, 65, 66, 68]),
    )
  } finally {
    tracker.close()
  }
  const ram = readFileSync(ramPath)
  for (const page of [3, 65, 66, 68]) expect(ram[page * 4096 + (page % 4096)]).toBe(1)
})

test('puts memory backends into the RAM file, one behind the other, and watches it', async () => {
  const environment = { SUBPAGE_RAM_BACKENDS: `${32 * 4096},${33 * 4096}`, SUBPAGE_AUX_RAM: 'on' }
  const victim = await victims.start({ pages: 65, layout: 'backends', environment })
  expect(readShimStatus(victim.statusPath)).toMatchObject({ mappings: 2, backends: 2, aux: [] })
  const { ramPath } = victim.target
  const tracker = openTracker(victim.target, 'auto')
  try {
    tracker.harvest()
    for (const page of [3, 31, 32, 64]) await victim.run(`write ${page} 1`)
    expect([...tracker.harvest().pages()]).toEqual(
      tracker.name === 'userfault' ? [3, 31, 32, 64] : expect.arrayContaining([3, 31, 32, 64]),
    )
    const ram = () => readFileSync(ramPath)
    for (const page of [3, 31, 32, 64]) expect(ram()[page * 4096 + (page % 4096)]).toBe(1)
    // Given back by QEMU, which takes it for anonymous: it reads as zero, and that is a change.
    await victim.run('discard 31 1')
    await victim.run('discard 64 1')
    for (const page of [31, 64])
      expect(
        ram()
          .subarray(page * 4096, (page + 1) * 4096)
          .every((byte) => byte === 0),
      ).toBe(true)
    expect(ram()[32 * 4096 + 32]).toBe(1)
    expect([...tracker.harvest().pages()]).toEqual(expect.arrayContaining([31, 64]))
  } finally {
    tracker.close()
  }
})

test('says of a memory backend that was given up that it is gone, and takes no other one in its place', async () => {
  const environment = { SUBPAGE_RAM_BACKENDS: `${32 * 4096},${32 * 4096}` }
  const victim = await victims.start({ pages: 64, layout: 'backends', environment })
  expect(readShimStatus(victim.statusPath)).toMatchObject({ backends: 2, unplugged: 0 })
  await victim.run('unmap')
  expect(readShimStatus(victim.statusPath)).toMatchObject({ backends: 1, unplugged: 1 })
  // Once for all.
  await victim.run('unmap')
  expect(readShimStatus(victim.statusPath)).toMatchObject({ backends: 1, unplugged: 1 })
  await victim.run('write 40 1')
  expect(readFileSync(victim.target.ramPath)[40 * 4096 + 40]).toBe(1)
})

test('forgetting what a memory backend has accessed takes nothing from it', async () => {
  const environment = { SUBPAGE_RAM_BACKENDS: `${32 * 4096},${32 * 4096}` }
  const victim = await victims.start({ pages: 64, layout: 'backends', environment })
  await victim.run('write 0 64')
  const channel = ForgetChannel.open(victim.target.forgetPath)
  try {
    await channel.forget(PageRanges.all(64))
  } finally {
    channel.close()
  }
  const ram = readFileSync(victim.target.ramPath)
  for (let page = 0; page < 64; page++) expect(ram[page * 4096 + page]).toBe(1)
})

test.each([
  ['of another size', `${31 * 4096},${33 * 4096}`, 0],
  ['of which only the first is known', `${32 * 4096}`, 1],
  ['that are no numbers', 'many', 0],
])('leaves memory backends %s where they are', async (_, sizes, placed) => {
  const victim = await victims.start({
    pages: 64,
    layout: 'backends',
    environment: { SUBPAGE_RAM_BACKENDS: sizes },
  })
  expect(readShimStatus(victim.statusPath)).toMatchObject({ backends: placed, mappings: placed })
  await victim.run('write 40 1')
  expect(readFileSync(victim.target.ramPath)[40 * 4096 + 40]).toBe(0)
})

test('leaves the blocks where they are when it is not asked for them', async () => {
  const alone = await victims.start({ pages: 64, layout: 'blocks' })
  expect(readShimStatus(alone.statusPath)).toMatchObject({ mappings: 1, aux: [] })
  await alone.run('write 64 5')
  expect(statSync(alone.target.ramPath).size).toBe(64 * 4096)
})

test('keeps the pages of RAM small, also when the program asks for huge ones', async () => {
  const victim = await victims.start({ pages: 2048, memfd: true, layout: 'huge' })
  const address = Number(await victim.run('address')).toString(16)
  const smaps = readFileSync(`/proc/${victim.pid}/smaps`, 'latin1')
  const flags = smaps.slice(smaps.indexOf(`\n${address}-`)).match(/VmFlags:(.*)/)?.[1]
  expect(flags).toMatch(/ nh\b/)
  expect(flags).not.toMatch(/ hg\b/)
})

test('leaves itself out of the environment of children, and keeps what others preload', async () => {
  const victim = await victims.start({ pages: 1 })
  expect(await victim.run('ld_preload')).toBe('')
  const other = await victims.start({
    pages: 1,
    environment: { LD_PRELOAD: `libm.so.6:${shimPath}:libpthread.so.0` },
  })
  expect(await other.run('ld_preload')).toBe('libm.so.6:libpthread.so.0')
  expect(readShimStatus(other.statusPath)?.mappings).toBe(1)
})

test.each(['a b', 'a:b', '$ORIGIN', 'a b:c $LIB'])('is loaded from below a folder named "%s"', (name) => {
  const folder = join(directory, name)
  mkdirSync(folder)
  const path = join(folder, 'shim.so')
  copyFileSync(shimPath, path)
  const status = join(directory, `${name}.status`)
  const library = openUnnameable(path)
  try {
    const environment = shimEnvironment({ library: '/proc/self/fd/3', ram: '/dev/shm/none', status })
    const said = spawnSync('true', {
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe', library],
      encoding: 'utf8',
    })
    expect(said).toMatchObject({ status: 0, stderr: '' })
  } finally {
    closeSync(library!)
  }
  expect(readShimStatus(status)?.tracking).toBe('waiting')
})

test('a path that LD_PRELOAD can name is named by itself, and one that leads nowhere is not opened', () => {
  expect(openUnnameable(join(directory, 'shim.so'))).toBeUndefined()
  expect(openUnnameable(join(directory, 'no where', 'shim.so'))).toBeUndefined()
})

test('a program in whose place another one loaded it counts as one without it', async () => {
  const victim = await victims.start({ pages: 1 })
  expect(shimMissing(victim.statusPath)).toBeUndefined()
  const status = join(directory, 'wrapped.status')
  const environment = { ...process.env, ...shimEnvironment({ ram: '/dev/shm/none', status }) }
  execFileSync('sh', ['-c', 'unset LD_PRELOAD; exec true'], { env: environment })
  expect(readShimStatus(status)?.tracking).toBe('waiting')
  expect(shimMissing(status)).toMatch(/has not loaded .*shim\.so: .*subpage check/)
  expect(shimMissing(join(directory, 'none.status'))).toMatch(/has not loaded/)
})

test('says `waiting` when the program never maps the RAM file', () => {
  const status = join(directory, 'waiting.status')
  execFileSync('true', { env: { ...process.env, ...shimEnvironment({ ram: '/dev/shm/none', status }) } })
  const report = readShimStatus(status)
  expect(report?.tracking).toBe('waiting')
  expect(report && describeShim(report)).toContain('saw no shared mapping')
})

test('hands its variables on to a program that another one starts in its place', async () => {
  const status = join(directory, 'handed-on.status')
  const environment = shimEnvironment({ ram: '/x', status, lease: '/x', guardQmp: '/x' })
  const script = '/bin/true; exec env'
  const seen = execFileSync('/bin/sh', ['-c', script], { env: { PATH: process.env.PATH, ...environment } })
  for (const [name, value] of Object.entries(environment))
    expect(seen.toString()).toContain(`${name}=${value}`)
})

test('the program runs on when nothing of the shim can work', async () => {
  const victim = await victims.start({
    pages: 16,
    environment: {
      SUBPAGE_SHIM_STATUS: '/nonexistent/status',
      SUBPAGE_LEASE: '/nonexistent/lease',
      SUBPAGE_GUARD_QMP: `/${'x'.repeat(200)}`,
    },
  })
  expect(await victim.run('write 0 16')).toBe('0')
})

test('no status when the shim is not loaded, and the tracker says what to do', async () => {
  const victim = await victims.start({ pages: 16, shim: false })
  expect(readShimStatus(victim.statusPath)).toBeUndefined()
  expect(() => openTracker(victim.target, 'userfault')).toThrow(
    expect.objectContaining({ code: 'TRACKER_UNAVAILABLE', message: expect.stringContaining('shim') }),
  )
})

test('auto falls back to compare and says why', async () => {
  const victim = await victims.start({ pages: 16, shim: false })
  const tracker = openTracker(victim.target, 'auto')
  expect(tracker.name).toBe('compare')
  expect(tracker.fallback).toContain('not registered for write tracking')
  expect(tracker.harvest().pageCount).toBe(16)
  tracker.close()
})

test('a tracker refuses a process that maps another size, or another file', async () => {
  const victim = await victims.start({ pages: 16 })
  const refused = expect.objectContaining({ code: 'TRACKER_UNAVAILABLE' })
  expect(() => openTracker({ ...victim.target, ramPages: 32 }, 'userfault')).toThrow(refused)
  expect(() => openTracker({ ...victim.target, ramPath: '/dev/null' }, 'userfault')).toThrow(refused)
})

test('the probe and the shim agree', async () => {
  const probe = probeUserfault()
  const victim = await victims.start({ pages: 16 })
  const tracker = openTracker(victim.target, 'auto')
  expect(tracker.name).toBe(probe.available ? 'userfault' : 'compare')
  expect(probe.reason).not.toBe('')
  tracker.close()
})

test('a tracker whose registration is lost says so and does not name too little', async () => {
  const victim = await victims.start({ pages: 16 })
  const status = readShimStatus(victim.statusPath)
  if (status?.tracking !== 'ok') return
  const tracker = openTracker(victim.target, 'userfault')
  tracker.harvest()
  await victim.run(`close ${status.uffd}`)
  for (let again = 0; again < 2; again++)
    expect(() => tracker.harvest()).toThrow(expect.objectContaining({ code: 'TRACKER_UNAVAILABLE' }))
  tracker.close()
})
