/** The working set of a real process that was not prepared for it, and of a recording. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Oracle } from '../../lab/test/process/oracle.ts'
import { buildVictim } from '../../lab/test/process/victim.ts'
import { isKernelThread, parseSmaps, readReferences } from '../../src/tracking/referenced.ts'
import { watchProcess } from '../../src/workingset/process.ts'
import type { Sample } from '../../src/workingset/sample.ts'
import { subpage } from '../support/subpage.ts'

const mibOf = (pages: number) => pages / 256

/** Fills 64 MiB, then uses the first `used` MiB of it again and again. */
const program = `
  const memory = Buffer.alloc(64 * 2 ** 20, 1)
  let used = 48
  process.stdin.on('data', (text) => { used = Number(text) })
  setInterval(() => { for (let at = 0; at < used * 2 ** 20; at += 4096) memory[at]++ }, 20)
  console.log('ready')
`

async function started() {
  const child = spawn(process.execPath, ['-e', program], { stdio: ['pipe', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  return child
}

async function sampleUntil(pid: number, enough: (sample: Sample) => boolean): Promise<Sample> {
  for await (const sample of watchProcess(pid, 200)) if (enough(sample)) return sample
  throw new TypeError('it watches until it has enough')
}

test('follows what a process uses, and loses nothing', async () => {
  const child = await started()
  try {
    const large = await sampleUntil(child.pid!, ({ dist }) => mibOf(dist.pages) > 48)
    expect(mibOf(large.ramPages)).toBeGreaterThan(64)
    expect(mibOf(large.dist.pages)).toBeLessThan(mibOf(large.ramPages))
    child.stdin.write('4')
    // The first interval after the change may have caught some of the time before it.
    const small = await sampleUntil(
      child.pid!,
      ({ dist, heat }) => dist.pages < large.dist.pages - 40 * 256 && heat.some((percent) => percent === 0),
    )
    expect(mibOf(small.dist.pages)).toBeGreaterThan(4)
    expect(small).toMatchObject({ written: null, idlePages: [] })
    const { status, out } = await subpage([
      'wss',
      `pid:${child.pid}`,
      '--for',
      '400ms',
      '--interval',
      '200ms',
    ])
    expect(status).toBe(0)
    expect(out).toMatch(/^\d+ MiB resident, [\d.]+ ± [\d.]+ MiB used over the last \d+ ms; .*\n/)
    expect(out).toContain('accessed bits')
    expect(child.exitCode).toBeNull()
  } finally {
    child.kill()
    await once(child, 'exit')
  }
  expect(() => readReferences(child.pid!)).toThrow(expect.objectContaining({ code: 'GUEST_DIED' }))
})

/** Several times what touching so much takes where faults are dear. */
const intervalMs = 2000

/** What one interval says in which the oracle does one thing. */
async function intervalOf(oracle: Oracle, doing: () => Promise<unknown>): Promise<Sample> {
  const watch = watchProcess(oracle.pid, intervalMs)
  const first = watch.next()
  await doing()
  const { value } = await first
  await watch.return(undefined)
  return value as Sample
}

test('pages in large ones, and hugetlb memory: the truth is between the bounds, and a note says why', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'subpage-wss-'))
  const oracle = await Oracle.start(buildVictim(folder, 'oracle'), '/bin/true')
  const setting = '/proc/sys/vm/nr_hugepages'
  const before = readFileSync(setting, 'utf8')
  try {
    await oracle.map(0, 'huge', 16_384)
    await oracle.run('write', 0, 0, 16_384)
    const sparse = await intervalOf(oracle, () => oracle.run('sparse', 0, 512, 32))
    const { pages, plusMinus } = sparse.dist
    // The program's own pages are used too.
    expect(pages - plusMinus).toBeLessThan(1000)
    expect(pages + plusMinus).toBeGreaterThan(32)
    expect(sparse.estimate.plusMinus).toBeGreaterThanOrEqual(plusMinus)
    expect(plusMinus === 0).toBe(sparse.largePages === 0)
    const all = await intervalOf(oracle, () => oracle.run('write', 0, 0, 16_384))
    expect(all.dist.pages + all.dist.plusMinus).toBeGreaterThanOrEqual(16_384)
    writeFileSync(setting, String(Number(before) + 4))
    await oracle.map(1, 'hugetlb', 2048)
    await oracle.run('write', 1, 0, 2048)
    const held = await intervalOf(oracle, () => oracle.run('read', 1, 0, 2048))
    expect(held.hugetlbPages).toBe(2048)
    expect(held.ramPages).toBeGreaterThan(16_384 + 2048)
    expect(held.dist.pages - held.dist.plusMinus).toBeLessThan(1000)
    expect(held.dist.pages + held.dist.plusMinus).toBeGreaterThan(2048)
    const { out } = await subpage(['wss', `pid:${oracle.pid}`, '--for', '400ms', '--interval', '200ms'])
    expect(out).toContain('8.0 MiB are hugetlb memory')
    expect(out.includes('transparent huge pages')).toBe(held.largePages! > 0)
  } finally {
    writeFileSync(setting, before)
    await oracle.end()
    rmSync(folder, { recursive: true })
  }
})

test('memory that is shared since a fork stays shared while it is watched', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'subpage-wss-'))
  const oracle = await Oracle.start(buildVictim(folder, 'oracle'), '/bin/true')
  try {
    await oracle.map(0, 'private', 16_384)
    await oracle.run('write', 0, 0, 16_384)
    await oracle.run('fork', 0, 0, 0)
    const { dist } = await intervalOf(oracle, () => oracle.run('read', 0, 0, 16_384))
    expect(dist.pages).toBeGreaterThanOrEqual(16_384)
    const rollup = readFileSync(`/proc/${oracle.pid}/smaps_rollup`, 'utf8')
    expect(Number(/^Shared_Dirty: +(\d+)/m.exec(rollup)![1])).toBeGreaterThanOrEqual(65_536)
  } finally {
    await oracle.end()
    rmSync(folder, { recursive: true })
  }
})

test('reads smaps: names with spaces, memory without a name, fields it does not know', () => {
  const text = `00400000-00452000 r-xp 00000000 08:02 173521      /opt/a program (deleted)
Size:                328 kB
Rss:                 320 kB
Referenced:          100 kB
Private_Dirty:         8 kB
7f0000000000-7f0000002000 rw-p 00000000 00:00 0
Rss:                   8 kB
Referenced:            8 kB
7f0000200000-7f0000800000 rw-p 00000000 00:00 0
Rss:                2052 kB
Referenced:         2048 kB
AnonHugePages:      2048 kB
ShmemPmdMapped:        0 kB
VmFlags: rd wr mr mw me ac hg
7f0000800000-7f0000c00000 rw-p 00000000 00:0f 123 /anon_hugepage (deleted)
Rss:                   0 kB
Referenced:            0 kB
Private_Hugetlb:    4096 kB
VmFlags: rd wr mr mw me de ht
`
  const none = { largePages: 0, hugetlbPages: 0 }
  expect(parseSmaps(text)).toEqual([
    {
      ...{ start: 0x400000, end: 0x452000, name: '/opt/a program (deleted)' },
      ...{ residentPages: 80, referencedPages: 25, largePages: 0, hugetlbPages: 0 },
    },
    { start: 0x7f0000000000, end: 0x7f0000002000, name: '', residentPages: 2, referencedPages: 2, ...none },
    {
      ...{ start: 0x7f0000200000, end: 0x7f0000800000, name: '' },
      ...{ residentPages: 513, referencedPages: 512, largePages: 512, hugetlbPages: 0 },
    },
    {
      ...{ start: 0x7f0000800000, end: 0x7f0000c00000, name: '/anon_hugepage (deleted)' },
      ...{ residentPages: 0, referencedPages: 0, largePages: 0, hugetlbPages: 1024 },
    },
  ])
})

test('a thread of the kernel has no memory to watch, one that is gone is none', async () => {
  expect(isKernelThread(process.pid)).toBe(false)
  // In a container there may be none to see.
  for (const pid of readFileSync('/proc/2/comm', 'utf8').trim() === 'kthreadd' ? [2] : [])
    expect(await subpage(['wss', `pid:${pid}`])).toMatchObject({
      status: 2,
      said: expect.stringContaining('thread of the kernel'),
    })
  expect(await subpage(['wss', 'pid:999999999'])).toMatchObject({
    status: 2,
    said: expect.stringContaining('no process 999999999'),
  })
})

test('misuse is said', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'subpage-wss-'))
  try {
    expect(await subpage(['wss', 'pid:none'])).toMatchObject({ status: 2 })
    expect(await subpage(['wss', 'pid:1', '--for', '10ms'])).toMatchObject({
      status: 2,
      said: expect.stringContaining('--interval'),
    })
    expect(await subpage(['wss', folder])).toMatchObject({ status: 2, said: expect.stringContaining(folder) })
  } finally {
    rmSync(folder, { recursive: true })
  }
})
