/** The working set of a real process that was not prepared for it, and of a recording. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parseSmaps, readReferences } from '../../src/tracking/referenced.ts'
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

test('reads smaps: names with spaces, memory without a name, fields it does not know', () => {
  const text = `00400000-00452000 r-xp 00000000 08:02 173521      /opt/a program (deleted)
Size:                328 kB
Rss:                 320 kB
Referenced:          100 kB
Private_Dirty:         8 kB
7f0000000000-7f0000002000 rw-p 00000000 00:00 0
Rss:                   8 kB
Referenced:            8 kB
`
  expect(parseSmaps(text)).toEqual([
    {
      ...{ start: 0x400000, end: 0x452000, name: '/opt/a program (deleted)' },
      ...{ residentPages: 80, referencedPages: 25 },
    },
    { start: 0x7f0000000000, end: 0x7f0000002000, name: '', residentPages: 2, referencedPages: 2 },
  ])
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
