/**
 * What it would cost to protect a domain of libvirt that runs as it is, without the restart that `subpage libvirt prepare` asks for: its
 * memory is anonymous, its seccomp filter lets no userfaultfd be made in it, and its monitor belongs to libvirt. So each checkpoint
 * stops it through libvirt, saves the devices' state, and compares all of its memory with a copy. Nothing of it is in the product:
 * these are the figures why. What a product would add to them is not counted.
 *
 *   {rows: [{ramMib, pauseUs, stopUs, saveUs, compareUs, contUs, changedPages}], rounds}    each a spread, over rounds
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { guestImage } from '../src/qemu/demo-guest.ts'
import { Libvirtd } from '../test/support/libvirt.ts'
import type { BenchOptions } from './bench.ts'
import { type Spread, spreadOf } from './spread.ts'

const pageBytes = 4096
const sliceBytes = 4 * 2 ** 20
/** What the demo guest says when it has booted, and its program updates its memory. */
const atWork = 'victim step='
const bootMs = 120_000

interface Round {
  pauseUs: number
  stopUs: number
  saveUs: number
  compareUs: number
  contUs: number
  changedPages: number
}

type Row = { ramMib: number } & { [figure in keyof Round]: Spread }

export async function run({ tiny, runs = tiny ? 2 : 20 }: BenchOptions) {
  await using libvirtd = await Libvirtd.start()
  const rows: Row[] = []
  for (const ramMib of tiny ? [128] : [256, 1024, 4096]) rows.push(await measure(libvirtd, ramMib, runs))
  return { json: { rows, rounds: runs }, text: textOf(rows) }
}

async function measure(libvirtd: Libvirtd, ramMib: number, rounds: number): Promise<Row> {
  const name = `outside${ramMib}`
  const description = await libvirtd.run(
    ...[
      'virt-install',
      '--name',
      name,
      '--memory',
      String(ramMib),
      '--virt-type',
      'qemu',
      '--machine',
      'q35',
    ],
    ...['--disk', 'none', '--network', 'none', '--graphics', 'none', '--noautoconsole', '--print-xml'],
    ...['--osinfo', 'detect=off,require=off'],
    ...[
      '--boot',
      `kernel=${guestImage('vmlinuz')},initrd=${guestImage('initrd.gz')},kernel_args=console=ttyS0`,
    ],
  )
  if (description.status !== 0) throw new Error(`virt-install: ${description.said}`)
  writeFileSync(libvirtd.pathOf(`/run/libvirt/${name}.xml`), description.out)
  await libvirtd.virsh('create', `/run/libvirt/${name}.xml`)
  const pid = Number(readFileSync(libvirtd.pathOf(`/run/libvirt/qemu/${name}.pid`), 'utf8'))
  const monitor = new Monitor(libvirtd, name)
  const memory = new Memory(pid, ramMib * 2 ** 20)
  try {
    await memory.untilItHas(atWork)
    const found: Round[] = []
    for (let round = 0; round < rounds; round++) found.push(await checkpoint(monitor, memory))
    const figures = Object.keys(found[0]!) as (keyof Round)[]
    const spreads = figures.map((figure) => [figure, spreadOf(found.map((one) => one[figure]))])
    return { ramMib, ...Object.fromEntries(spreads) }
  } finally {
    memory.close()
    await monitor.end()
    await libvirtd.virsh('destroy', name)
  }
}

async function checkpoint(monitor: Monitor, memory: Memory): Promise<Round> {
  const at = [performance.now()]
  const mark = () => at.push(performance.now())
  await monitor.run({ execute: 'stop' })
  mark()
  await monitor.run({
    execute: 'xen-save-devices-state',
    arguments: { filename: '/dev/shm/outside', live: false },
  })
  mark()
  const changedPages = memory.changes()
  mark()
  await monitor.run({ execute: 'cont' })
  mark()
  const [stopUs, saveUs, compareUs, contUs] = at.slice(1).map((time, step) => (time - at[step]!) * 1000)
  return {
    pauseUs: (at.at(-1)! - at[0]!) * 1000,
    ...{ stopUs: stopUs!, saveUs: saveUs!, compareUs: compareUs!, contUs: contUs!, changedPages },
  }
}

/** One virsh for all commands: starting one for each would take as long as all the rest. */
class Monitor {
  readonly #virsh: ChildProcess
  readonly #name: string
  #said = ''
  #heard = () => {}

  constructor({ prefix }: Libvirtd, name: string) {
    const [program, ...before] = prefix
    this.#name = name
    this.#virsh = spawn(program!, [...before, 'virsh', '--connect', 'qemu:///system'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#virsh.stdout!.setEncoding('utf8').on('data', (text) => {
      this.#said += text
      this.#heard()
    })
  }

  async run(command: { execute: string; arguments?: object }): Promise<void> {
    this.#said = ''
    const answered = new Promise<void>((resolve) => {
      this.#heard = () => /\{.*\}\s*\n/.test(this.#said) && resolve()
    })
    this.#virsh.stdin!.write(`qemu-monitor-command ${this.#name} '${JSON.stringify(command)}'\n`)
    await answered
    if (/"error":/.test(this.#said)) throw new Error(`${command.execute}: ${this.#said}`)
  }

  async end(): Promise<void> {
    this.#virsh.stdin!.end('quit\n')
    await new Promise((resolve) => this.#virsh.once('exit', resolve))
  }
}

/** The guest's RAM as a stranger sees it, beside a copy of how it was. */
class Memory {
  readonly #file: number
  readonly #from: number
  readonly #copy: Buffer
  readonly #slice = Buffer.alloc(sliceBytes)

  constructor(pid: number, bytes: number) {
    this.#from = addressOf(pid, bytes)
    this.#file = openSync(`/proc/${pid}/mem`, 'r')
    this.#copy = Buffer.alloc(bytes)
  }

  /** @returns pages that differ from the copy, which has them afterwards */
  changes(): number {
    let changed = 0
    for (let at = 0; at < this.#copy.length; at += sliceBytes) {
      if (readSync(this.#file, this.#slice, 0, sliceBytes, this.#from + at) !== sliceBytes)
        throw new Error('its memory cannot be read')
      const before = this.#copy.subarray(at, at + sliceBytes)
      if (this.#slice.equals(before)) continue
      for (let page = 0; page < sliceBytes; page += pageBytes) {
        if (this.#slice.compare(before, page, page + pageBytes, page, page + pageBytes) === 0) continue
        this.#slice.copy(before, page, page, page + pageBytes)
        changed++
      }
    }
    return changed
  }

  async untilItHas(text: string): Promise<void> {
    for (const deadline = performance.now() + bootMs; performance.now() < deadline; await delay(500)) {
      this.changes()
      if (this.#copy.includes(text)) return
    }
    throw new Error(`after ${bootMs / 1000} s the guest does not say "${text}"`)
  }

  close(): void {
    closeSync(this.#file)
  }
}

/** The one mapping that is large enough, or the one that begins where QEMU aligns its RAM in a larger one. */
function addressOf(pid: number, bytes: number): number {
  for (const line of readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n')) {
    const [from, to] = (/^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line) ?? [])
      .slice(1)
      .map((text) => Number.parseInt(text, 16))
    if (from !== undefined && to! - from >= bytes) return from
  }
  throw new Error(`process ${pid} has no mapping of ${bytes} bytes`)
}

const ms = ({ median, low, high }: Spread) =>
  `${(median / 1000).toFixed(1)} (${(low / 1000).toFixed(1)} to ${(high / 1000).toFixed(1)})`

const textOf = (rows: Row[]) =>
  rows
    .map(
      ({ ramMib, pauseUs, stopUs, saveUs, compareUs, contUs, changedPages }) =>
        `${ramMib} MiB: pause ${ms(pauseUs)} ms: stop ${ms(stopUs)}, devices ${ms(saveUs)}, comparing ${ms(compareUs)}, cont ${ms(contUs)}; ${changedPages.median} pages changed`,
    )
    .join('\n')
