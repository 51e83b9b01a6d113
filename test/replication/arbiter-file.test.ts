/** The arbiter in a directory: what every arbiter must do, and what only files can suffer. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { limits } from '../../src/limits.ts'
import { openArbiter } from '../../src/replication/arbiters/open.ts'
import { OwnTime } from '../support/own-time.ts'
import { compileProgram } from '../support/program.ts'
import { seededRandom } from '../support/random.ts'
import { conformance } from './arbiter-conformance.ts'

const scratch = fs.mkdtempSync(join(tmpdir(), 'subpage-arbiter-'))
let root = ''

beforeEach(() => {
  root = fs.mkdtempSync(join(scratch, 'root-'))
})
afterAll(() => fs.rmSync(scratch, { recursive: true }))

const open = (limitMs?: number) => openArbiter(`file:${root}`, limitMs === undefined ? {} : { limitMs })
const unreachable = (message: RegExp) => ({
  code: 'ARBITER_UNREACHABLE',
  message: expect.stringMatching(message),
})

describe('file arbiter', () => conformance(() => open(30_000)))

it('answers a hundred guests at once', async () => {
  const arbiter = open(30_000)
  const guests = Array.from({ length: 100 }, () => randomUUID())
  const answers = await Promise.all(guests.map((guest) => arbiter.claim(guest, 1, 'host-a')))
  for (const answer of answers) expect(answer.claimant).toBe('host-a')
  arbiter.close()
})

it('takes a decision that is longer than any for damage, and decides nothing by it', async () => {
  const guest = randomUUID()
  const arbiter = open()
  const won = await arbiter.claim(guest, 1, 'host-a')
  const path = join(root, guest, '1')
  const text = fs.readFileSync(path, 'utf8').trimEnd()
  fs.writeFileSync(path, `${text}${' '.repeat(limits.arbiterDecisionBytes.value - text.length)}`)
  expect(await arbiter.claim(guest, 1, 'host-b')).toEqual(won)
  fs.appendFileSync(path, ' ')
  await expect(arbiter.claim(guest, 1, 'host-b')).rejects.toMatchObject({ code: 'ARBITER_UNREACHABLE' })
  arbiter.close()
})

describe('what it leaves', () => {
  it('is for its owner alone, and no temporary file', async () => {
    const guest = randomUUID()
    const arbiter = open()
    await arbiter.claim(guest, 7, 'host-a')
    await arbiter.claim(guest, 7, 'host-b')
    await arbiter.leaveMark('mark')
    const mode = (path: string) => (fs.statSync(join(root, path)).mode & 0o777).toString(8)
    expect(fs.readdirSync(root, { recursive: true }).sort()).toEqual(
      [guest, `${guest}/7`, 'marks', 'marks/.mark-mark'].sort(),
    )
    expect([guest, `${guest}/7`, 'marks', 'marks/.mark-mark'].map(mode)).toEqual(['700', '600', '700', '600'])
  })

  it('goes after a minute when it is a mark or a temporary file, never when it is a decision', async () => {
    const guest = randomUUID()
    const arbiter = open()
    const won = await arbiter.claim(guest, 1, 'host-a')
    await arbiter.leaveMark('old')
    await arbiter.leaveMark('young')
    const files = { decision: `${guest}/1`, temporary: `${guest}/.claim-x`, mark: 'marks/.mark-old' }
    fs.writeFileSync(join(root, files.temporary), '')
    const past = new Date(Date.now() - 61_000)
    for (const file of Object.values(files)) fs.utimesSync(join(root, file), past, past)
    await arbiter.leaveMark('new')
    await arbiter.claim(guest, 2, 'host-a')
    expect(fs.existsSync(join(root, files.temporary))).toBe(false)
    expect([await arbiter.seesMark('old'), await arbiter.seesMark('young')]).toEqual([false, true])
    expect(await arbiter.claim(guest, 1, 'host-b')).toEqual(won)
  })
})

describe('a place that cannot be relied on', () => {
  const guest = randomUUID()

  async function refuses(message: RegExp, arbiter = open()): Promise<void> {
    await expect(arbiter.claim(guest, 1, 'host-a')).rejects.toMatchObject(unreachable(message))
    await expect(arbiter.leaveMark('mark')).rejects.toMatchObject(unreachable(message))
  }

  it('is no answer: a directory that is missing, and it is not made', async () => {
    fs.rmdirSync(root)
    await refuses(/does not exist/)
    await expect(open().holder(guest, 1)).rejects.toMatchObject(unreachable(/does not exist/))
    await expect(open().seesMark('mark')).rejects.toMatchObject(unreachable(/does not exist/))
    expect(fs.existsSync(root)).toBe(false)
  })

  it('is no answer: a file, and a directory where nobody can write', async () => {
    await refuses(/not a directory/, openArbiter(`file:${process.execPath}`))
    await refuses(/EPERM|EACCES|EROFS|ENOENT/, openArbiter('file:/sys'))
  })

  it('is no answer: a directory that others may write to', async () => {
    fs.chmodSync(root, 0o777)
    await refuses(/chmod go-w/)
  })

  it('is no answer: another directory in its place, as when a share is unmounted', async () => {
    const arbiter = open()
    const won = await arbiter.claim(guest, 1, 'host-a')
    fs.renameSync(root, `${root}.away`)
    fs.mkdirSync(root, 0o700)
    await refuses(/another directory than before/, arbiter)
    fs.rmdirSync(root)
    fs.renameSync(`${root}.away`, root)
    expect(await arbiter.claim(guest, 1, 'host-b')).toEqual(won)
  })

  const damages: Record<string, (path: string) => void> = {
    'an empty file': (path) => fs.writeFileSync(path, ''),
    'half a decision': (path) => fs.truncateSync(path, 30),
    'a decision on something else': (path) =>
      fs.writeFileSync(path, fs.readFileSync(path, 'utf8').replace('"generation":1', '"generation":2')),
    'a format of the future': (path) =>
      fs.writeFileSync(path, fs.readFileSync(path, 'utf8').replace('"format":1', '"format":2')),
    'a large file': (path) => fs.writeFileSync(path, Buffer.alloc(2 ** 20, 32)),
    'a directory': (path) => {
      fs.rmSync(path)
      fs.mkdirSync(path)
    },
    'a symbolic link': (path) => {
      fs.renameSync(path, `${path}.moved`)
      fs.symlinkSync(`${path}.moved`, path)
    },
    'a pipe that nobody writes to': (path) => {
      fs.rmSync(path)
      execFileSync('mkfifo', [path])
    },
  }
  for (const [what, damage] of Object.entries(damages))
    it(`is no answer: ${what} instead of a decision`, async () => {
      const arbiter = open()
      await arbiter.claim(guest, 1, 'host-a')
      damage(join(root, guest, '1'))
      const damaged = unreachable(/is damaged: .*end it on the other, then delete|ELOOP/)
      await expect(arbiter.claim(guest, 1, 'host-b')).rejects.toMatchObject(damaged)
      await expect(arbiter.holder(guest, 1)).rejects.toMatchObject(damaged)
    })

  it('is no answer: a disk that hangs; when it returns, claims made in vain are not carried out', async () => {
    const arbiter = open(300)
    await arbiter.claim(guest, 1, 'host-a')
    // Every thread of libuv waits for the writer of a pipe, as it would for a server of files.
    const threads = Number(process.env.UV_THREADPOOL_SIZE ?? 4)
    const pipes = Array.from({ length: threads }, (_, index) => join(root, `pipe-${index}`))
    execFileSync('mkfifo', pipes)
    const hanging = pipes.map((pipe) => fs.promises.open(pipe, 'r'))
    using own = new OwnTime()
    const waiting = [arbiter.claim(guest, 2, 'host-a'), arbiter.claim(guest, 3, 'host-a')]
    for (const result of await Promise.allSettled([...waiting, arbiter.seesMark('mark')]))
      expect(result).toMatchObject({ status: 'rejected', reason: unreachable(/no answer within 0.3 s/) })
    expect(own.ms).toBeLessThan(2_000)
    const writers = pipes.map((pipe) => fs.openSync(pipe, fs.constants.O_RDWR | fs.constants.O_NONBLOCK))
    for (const file of await Promise.all(hanging)) await file.close()
    for (const writer of writers) fs.closeSync(writer)
    expect(await arbiter.holder(guest, 3)).toBeUndefined()
    expect(await arbiter.holder(guest, 1)).toMatchObject({ claimant: 'host-a' })
  })
})

describe('several processes', () => {
  const program = join(scratch, 'program')

  let script: string

  beforeAll(() => {
    script = compileProgram(join(import.meta.dirname, 'children/claimant.ts'), program)
  }, 60_000)

  function claimant(name: string, guest: string, generations: number): ChildProcess {
    return spawn(process.execPath, [script, root, guest, name, String(generations)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
  }

  /** What it printed: one winner a line. It starts when told, so that all run at once. */
  async function winners(child: ChildProcess): Promise<string[]> {
    const [out, [status, signal]] = await Promise.all([text(child.stdout!), once(child, 'exit')])
    expect([0, 'SIGKILL']).toContain(status ?? signal)
    return out.trim().split('\n').slice(1)
  }

  async function start(children: ChildProcess[]): Promise<void> {
    await Promise.all(children.map((child) => once(child.stdout!, 'readable')))
    for (const child of children) child.stdin!.end('go')
  }

  it('agree on every one of 60 decisions', async () => {
    const guest = randomUUID()
    const names = ['host-a', 'host-b', 'host-c', 'host-d']
    const children = names.map((name) => claimant(name, guest, 60))
    const all = Promise.all(children.map(winners))
    await start(children)
    // A decision is whole from the first moment it can be seen.
    const witness = open()
    const seen: string[] = []
    while (seen.length < 60) {
      // One that fails ends the waiting.
      const holder = await Promise.race([
        witness.holder(guest, seen.length),
        all.then(() => witness.holder(guest, seen.length)),
      ])
      if (holder) seen.push(holder.claimant)
    }
    const [first, ...others] = await all
    expect(seen).toEqual(first)
    expect(first).toHaveLength(60)
    for (const other of others) expect(other).toEqual(first)
  })

  it('may be killed at any moment: what they won stands, what they left does not hinder', async () => {
    const random = seededRandom()
    for (let round = 0; round < 3; round++) {
      const guest = randomUUID()
      const victim = claimant('host-a', guest, 10_000)
      const told = winners(victim)
      await start([victim])
      const limit = random.integer(1, 30)
      let decisions = 0
      victim.stdout!.on('data', (chunk: Buffer) => {
        decisions += chunk.toString().split('\n').length - 1
        if (decisions >= limit) victim.kill('SIGKILL')
      })
      const said = await told
      const survivor = open()
      for (const [generation, winner] of said.entries())
        expect(await survivor.claim(guest, generation, 'host-b'), `seed ${random.seed}`).toMatchObject({
          claimant: winner,
        })
      // The one under way may have been won unsaid; those after it are free.
      const next = await survivor.claim(guest, said.length, 'host-b')
      expect(['host-a', 'host-b']).toContain(next.claimant)
      expect(await survivor.claim(guest, said.length + 1, 'host-b')).toMatchObject({ claimant: 'host-b' })
      survivor.close()
    }
  })
})
