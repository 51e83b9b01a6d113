/**
 * Records epochs of real guests for the benchmarks: boots the demo guest under redis, sqlite and a shell, pauses it as a
 * checkpoint would, and keeps each page that changed in the epoch, before and after it. Writes build/epochs/NAME.epochs
 * (format: bench/recorded-epochs.ts). `npm run record-epochs -- [NAME...]`; needs scripts/build-guest.sh all.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { epochsFolder, type RecordedEpoch, writeEpochs } from '../bench/recorded-epochs.ts'
import { needBuilt } from '../src/built.ts'
import { asSubpageError } from '../src/errors.ts'
import { hashBlocksSync, hashBytes } from '../src/memory/hash.ts'
import { packageRoot } from '../src/memory/native.ts'
import { pageBytes } from '../src/memory/page.ts'
import { PageRanges } from '../src/memory/page-ranges.ts'
import { Region } from '../src/memory/region.ts'
import { qemuBinary } from '../src/qemu/launch.ts'

/** As many milliseconds of guest time as an epoch of a protected guest has. */
const epochMs = 50
/** Enough to be more than the caches of most machines hold, little enough to read at once. */
const pagesWanted = 3000
const epochsMax = 200
const ramMib = 512

interface Workload {
  name: string
  /** The line of its console that says that it is at work. */
  started: RegExp
  /** A command to the guest's console that makes the work. */
  command?: string
}

const workloads: readonly Workload[] = [
  {
    name: 'redis',
    started: /ready/,
    command:
      'sleep 4; redis-benchmark -r 20000 -n 100000000 -d 100 -t set,incr,lpush,hset -q >/dev/null 2>&1 &',
  },
  { name: 'sqlite', started: /sqlite transactions=[0-9]{3}/ },
  { name: 'shell', started: /shell round=2/ },
]

const commandLine =
  'console=ttyS0 quiet panic=-1 tsc=unstable no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1 cryptomgr.notests'

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Lines of a stream; resolves with the next one that matches. */
function lineReader(socket: Socket): (pattern: RegExp) => Promise<string> {
  const waiting: { pattern: RegExp; resolve: (line: string) => void }[] = []
  createInterface({ input: socket }).on('line', (line) => {
    const at = waiting.findIndex(({ pattern }) => pattern.test(line))
    if (at >= 0) waiting.splice(at, 1)[0]!.resolve(line)
  })
  return (pattern) => new Promise((resolve) => waiting.push({ pattern, resolve }))
}

async function record(workload: Workload): Promise<RecordedEpoch[]> {
  const folder = mkdtempSync('/dev/shm/subpage-record-')
  const servers = ['console', 'qmp'].map((name) => createServer().listen(join(folder, name)))
  const connected = servers.map(async (server) => (await once(server, 'connection'))[0] as Socket)
  const guest = join(packageRoot, 'build/guest')
  const qemu = spawn(
    qemuBinary,
    [
      [
        '-M',
        'q35,memory-backend=ram',
        '-accel',
        'tcg',
        '-m',
        String(ramMib),
        '-nodefaults',
        '-display',
        'none',
      ],
      ['-object', `memory-backend-file,id=ram,size=${ramMib}M,mem-path=${join(folder, 'ram')},share=on`],
      ['-kernel', join(guest, 'vmlinuz'), '-initrd', join(guest, 'initrd-workloads.gz')],
      ['-append', `${commandLine} workload=${workload.name}`],
      ['-chardev', `socket,id=console,path=${join(folder, 'console')}`, '-serial', 'chardev:console'],
      ['-chardev', `socket,id=qmp,path=${join(folder, 'qmp')}`, '-mon', 'chardev=qmp,mode=control'],
    ].flat(),
    { stdio: ['ignore', 'inherit', 'inherit'] },
  )
  try {
    const [console, qmp] = (await Promise.all(connected)) as [Socket, Socket]
    const consoleLine = lineReader(console)
    const answer = lineReader(qmp)
    const run = async (command: string) => {
      const done = answer(/"return"/)
      qmp.write(`${JSON.stringify({ execute: command })}\n`)
      await done
    }
    const started = consoleLine(workload.started)
    await run('qmp_capabilities')
    await started
    if (workload.command) {
      console.write(`run ${workload.command}\n`)
      await pause(8000)
    }
    using ram = Region.map(join(folder, 'ram'), { writable: false })
    return await recordEpochs(ram, run)
  } finally {
    qemu.kill('SIGKILL')
    for (const server of servers) server.close()
    rmSync(folder, { recursive: true })
  }
}

async function recordEpochs(ram: Region, run: (command: string) => Promise<void>): Promise<RecordedEpoch[]> {
  using shadow = Region.anonymous(ram.bytes)
  const all = PageRanges.all(ram.pages)
  const epochs: RecordedEpoch[] = []
  let hashes: Uint8Array = new Uint8Array(0)
  let pages = 0
  for (let epoch = 0; pages < pagesWanted && epoch <= epochsMax; epoch++) {
    await run('stop')
    const now = hashBlocksSync(ram, all, pageBytes)
    const changed = epoch === 0 ? all.pages() : changedPages(hashes, now)
    const taken = takePages(ram, shadow, Uint32Array.from(changed), epoch > 0)
    hashes = now
    if (taken) {
      epochs.push(taken)
      pages += taken.pages.length
    }
    await run('cont')
    await pause(epochMs)
  }
  return epochs
}

function* changedPages(before: Uint8Array, after: Uint8Array): Generator<number> {
  for (let at = 0; at < after.length; at += hashBytes)
    if (Buffer.compare(before.subarray(at, at + hashBytes), after.subarray(at, at + hashBytes)) !== 0)
      yield at / hashBytes
}

/** Brings the shadow up to date; with `keep`, returns the pages before and after. */
function takePages(
  ram: Region,
  shadow: Region,
  pages: Uint32Array,
  keep: boolean,
): RecordedEpoch | undefined {
  const before = new Uint8Array(keep ? pages.length * pageBytes : 0)
  const after = new Uint8Array(before.length)
  const page = new Uint8Array(pageBytes)
  pages.forEach((number, i) => {
    ram.readInto(number * pageBytes, page)
    if (keep) {
      shadow.readInto(number * pageBytes, before.subarray(i * pageBytes, (i + 1) * pageBytes))
      after.set(page, i * pageBytes)
    }
    shadow.write(number * pageBytes, page)
  })
  return keep && pages.length > 0 ? { pages, before, after } : undefined
}

try {
  needBuilt('native', 'guest', 'workloads')
} catch (thrown) {
  const { message, exit } = asSubpageError(thrown)
  console.error(`record-epochs: ${message}`)
  process.exit(exit)
}
const chosen = process.argv.slice(2)
mkdirSync(epochsFolder, { recursive: true })
for (const workload of workloads) {
  if (chosen.length > 0 && !chosen.includes(workload.name)) continue
  const epochs = await record(workload)
  const pages = epochs.reduce((sum, epoch) => sum + epoch.pages.length, 0)
  writeEpochs(join(epochsFolder, `${workload.name}.epochs`), epochs)
  console.log(`${workload.name}: ${epochs.length} epochs, ${pages} pages`)
}
