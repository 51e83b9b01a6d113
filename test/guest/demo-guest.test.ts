/**
 * The demo guest boots, and its victim program proves itself: it says TORN when, and only when, its memory was
 * changed behind its back. Later tests rely on the second half, so it is shown here on a real QEMU, and then many
 * times over on the same program running as an ordinary process, whose memory can be damaged more quickly.
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { beforeAll, expect, onTestFinished, test } from 'vitest'
import { qemuBinary } from '../../src/qemu/launch.ts'

const page = 4096
const pageMagic = Buffer.from('SUBPGVIC')
// The recommended one: guest/README.md.
const commandLine = /^ {4}(console=.*)$/m.exec(readFileSync('guest/README.md', 'utf8'))![1]!

beforeAll(() => {
  execFileSync('scripts/build-guest.sh', { stdio: 'inherit' })
})

/** Collects lines; `line(pattern)` resolves with the first match that no earlier call has consumed. */
function lines(input: NodeJS.ReadableStream) {
  const seen: string[] = []
  let wake = () => {}
  createInterface({ input }).on('line', (text) => {
    seen.push(text)
    wake()
  })
  let next = 0
  return async (pattern: RegExp): Promise<RegExpExecArray> => {
    for (;;) {
      while (next < seen.length) {
        const match = pattern.exec(seen[next++]!)
        if (match) return match
      }
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
  }
}

/** Boots the guest on a shared RAM file. QEMU connects to sockets that wait for it, so no line is lost. */
async function boot() {
  const folder = mkdtempSync('/dev/shm/subpage-guest-test-')
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const ram = join(folder, 'ram')
  const servers = ['console', 'qmp'].map((name) => createServer().listen(join(folder, name)))
  await Promise.all(servers.map((server) => once(server, 'listening')))
  const connections = servers.map((server) => once(server, 'connection') as Promise<[Socket]>)
  const arguments_ = [
    [
      '-M',
      'q35,memory-backend=ram',
      '-accel',
      'tcg',
      '-m',
      '128',
      '-nodefaults',
      '-display',
      'none',
      '-no-reboot',
    ],
    ['-object', `memory-backend-file,id=ram,size=128M,mem-path=${ram},share=on`],
    ['-kernel', 'build/guest/vmlinuz', '-initrd', 'build/guest/initrd.gz', '-append', commandLine],
    ['-chardev', `socket,id=console,path=${join(folder, 'console')}`, '-serial', 'chardev:console'],
    ['-chardev', `socket,id=qmp,path=${join(folder, 'qmp')}`, '-mon', 'chardev=qmp,mode=control'],
  ]
  const qemu = spawn(qemuBinary, arguments_.flat(), { stdio: ['ignore', 'inherit', 'inherit'] })
  const exited = once(qemu, 'exit')
  onTestFinished(async () => {
    qemu.kill('SIGKILL')
    await exited
    for (const server of servers) server.close()
  })
  const [[serial], [qmp]] = (await Promise.all(connections)) as [[Socket], [Socket]]
  const answer = lines(qmp)
  await answer(/"QMP"/)
  const command = async (name: string) => {
    qmp.write(`{"execute":"${name}"}\n`)
    await answer(/"(return|error)"/)
  }
  await command('qmp_capabilities')
  return { ram, line: lines(serial), type: (text: string) => serial.write(`${text}\n`), command, exited }
}

/** Where each page of the victim lies in a RAM file: index → offset. */
function victimPages(ram: Buffer): Map<number, number> {
  const found = new Map<number, number>()
  for (let at = ram.indexOf(pageMagic); at >= 0; at = ram.indexOf(pageMagic, at + 8)) {
    if (at % page === 0) found.set(Number(ram.readBigUInt64LE(at + 8)), at)
  }
  return found
}

function patch(file: string, offset: number, bytes: Buffer) {
  const fd = openSync(file, 'r+')
  writeSync(fd, bytes, 0, bytes.length, offset)
  closeSync(fd)
}

test('boots, works, answers, and keeps the promised history', async () => {
  const guest = await boot()
  await guest.line(/^subpage-guest: ready$/)
  await guest.line(/^victim step=\d+ pages=\d+ verify=[1-9]\d* digest=[0-9a-f]{16}$/)
  await guest.command('stop')
  await guest.command('cont')
  guest.type('verify')
  const [, asked] = await guest.line(/^victim verified step=(\d+) ok$/)
  const [last, step] = await guest.line(/^victim step=(\d+) .*/)
  expect(Number(step)).toBeGreaterThanOrEqual(Number(asked))
  const replay = execFileSync('build/guest/victim', [`until=${step}`], { encoding: 'utf8' })
  expect(replay.trim().split('digest=')[1]).toBe(last.split('digest=')[1])
  guest.type('poweroff')
  await guest.exited
})

test('finds a byte changed from outside', async () => {
  const guest = await boot()
  await guest.line(/^victim step=[1-9]/)
  await guest.command('stop')
  const ram = readFileSync(guest.ram)
  const pages = victimPages(ram)
  expect(pages.size).toBe(32 * 256)
  const offset = pages.get(4321)! + 2345
  patch(guest.ram, offset, Buffer.from([ram[offset]! ^ 0x10]))
  await guest.command('cont')
  guest.type('verify')
  await guest.line(/^victim TORN step=\d+ page=4321 why=content /)
  await guest.line(/^victim TORN step=\d+ page=4321 why=content /)
})

test('finds a page that went back in time', async () => {
  const guest = await boot()
  await guest.line(/^victim step=[1-9]/)
  await guest.command('stop')
  const before = readFileSync(guest.ram)
  await guest.command('cont')
  for (let reports = 0; reports < 10; reports++) await guest.line(/^victim step=/)
  await guest.command('stop')
  const after = readFileSync(guest.ram)
  const old = [...victimPages(after)].find(
    ([, at]) => !before.subarray(at, at + page).equals(after.subarray(at, at + page)),
  )
  const [index, at] = old!
  patch(guest.ram, at, before.subarray(at, at + page))
  await guest.command('cont')
  guest.type('verify')
  await guest.line(new RegExp(`^victim TORN step=\\d+ page=${index} why=content `))
})

/** The victim as a process on this machine, its self-verifying memory readable and writable from outside. */
async function ownProcess() {
  const victim = spawn('build/guest/victim', ['mib=2', 'verify_ms=60000'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const exited = once(victim, 'exit')
  onTestFinished(async () => {
    victim.kill('SIGKILL')
    await exited
  })
  const line = lines(victim.stdout)
  await line(/^victim step=[1-9]/)
  const fd = openSync(`/proc/${victim.pid}/mem`, 'r+')
  onTestFinished(() => closeSync(fd))
  // Its private anonymous mappings apart from heap and stack: pages, table, journal, root and mirror.
  const maps = readFileSync(`/proc/${victim.pid}/maps`, 'utf8').matchAll(
    /^(\w+)-(\w+) rw-p 00000000 00:00 0 *$/gm,
  )
  const areas = [...maps].map(
    ([, from, to]) => [Number.parseInt(from!, 16), Number.parseInt(to!, 16)] as const,
  )
  return {
    line,
    verify: () => victim.stdin.write('verify\n'),
    resume: () => victim.kill('SIGCONT'),
    /** Stops it between two instructions and returns its memory: address of page → content. */
    stop() {
      victim.kill('SIGSTOP')
      while (!/\) T /.test(readFileSync(`/proc/${victim.pid}/stat`, 'utf8'))) {}
      const memory = new Map<number, Buffer>()
      for (const [from, to] of areas)
        for (let at = from; at < to; at += page) {
          const content = Buffer.alloc(page)
          readSync(fd, content, 0, page, at)
          memory.set(at, content)
        }
      return memory
    },
    write: (address: number, bytes: Buffer) => writeSync(fd, bytes, 0, bytes.length, address),
  }
}

test.each(Array.from({ length: 40 }, (_, seed) => seed))(
  'never mistakes two times mixed for one (seed %i)',
  async (seed) => {
    const random = generator(seed)
    const victim = await ownProcess()
    const before = victim.stop()
    // The lines that changed; some of them, from a single one to all, go back to what they were.
    const changed: { address: number; old: Buffer }[] = []
    // What it said before it was stopped may be read only now.
    while (changed.length <= 100) {
      victim.resume()
      await victim.line(/^victim step=/)
      changed.length = 0
      for (const [address, content] of victim.stop())
        for (let at = 0; at < page; at += 64) {
          const old = before.get(address)!.subarray(at, at + 64)
          if (!old.equals(content.subarray(at, at + 64))) changed.push({ address: address + at, old })
        }
    }
    const count =
      [0, 1, 2, changed.length - 1, changed.length][seed] ?? 1 + Math.floor(random() ** 3 * changed.length)
    for (let taken = 0; taken < count; taken++) {
      const other = taken + Math.floor(random() * (changed.length - taken))
      ;[changed[taken], changed[other]] = [changed[other]!, changed[taken]!]
      victim.write(changed[taken]!.address, changed[taken]!.old)
    }
    victim.verify()
    victim.resume()
    const [verdict] = await victim.line(/^victim (verified|TORN) /)
    expect(verdict, `${count} of ${changed.length} lines back, seed ${seed}`).toMatch(
      count === 0 ? /verified/ : /TORN/,
    )
  },
)

/** A small seeded generator of numbers from 0 up to 1 (mulberry32). */
function generator(seed: number) {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
