/** Builds victim.c, starts it, and talks to it: one command, one answer. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { RecordTarget } from '../../src/record/target.ts'

export function buildVictim(
  folder: string,
  name: 'victim' | 'oracle' | 'calls' | 'edges' | 'storms' = 'victim',
): string {
  const program = join(folder, name)
  execFileSync('cc', [
    '-O1',
    '-Wall',
    '-Wextra',
    '-o',
    program,
    join(import.meta.dirname, `${name}.c`),
    '-lpthread',
  ])
  return program
}

export interface Stepper {
  pid: number
  address: number
  run(command: string): Promise<void>
  memory(pages: number): Buffer
  end(): Promise<void>
}

/** `steps`: does nothing but what it is told. */
export async function startStepper(program: string, pages: number): Promise<Stepper> {
  const child = spawn(program, ['steps', String(pages)], { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })
  const [first] = (await once(lines, 'line')) as [string]
  const [pid, address] = first.split(' ').map(Number) as [number, number]
  return {
    pid,
    address,
    async run(command) {
      const answer = once(lines, 'line')
      child.stdin.write(`${command}\n`)
      await answer
    },
    memory: (count) => memoryOf(pid, address, count),
    async end() {
      child.stdin.end()
      await ended(child)
    },
  }
}

export function memoryOf(pid: number, address: number, pages: number): Buffer {
  const fd = openSync(`/proc/${pid}/mem`, 'r')
  const bytes = Buffer.alloc(pages * 4096)
  readSync(fd, bytes, 0, bytes.length, address)
  closeSync(fd)
  return bytes
}

export async function ended(child: ChildProcess): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  return child.exitCode
}

/** What a watcher could leave behind. */
export function tracesOn(pid: number) {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const smaps = readFileSync(`/proc/${pid}/smaps`, 'latin1')
  return {
    tracer: Number(/^TracerPid:\s*(\d+)/m.exec(status)![1]),
    stopped: /^State:\s*[tT]/m.test(status),
    descriptors: readdirSync(`/proc/${pid}/fd`).sort(),
    mappings: smaps.split('\n').filter((line) => /^[0-9a-f]+-/.test(line)),
    registered: smaps.split('\n').filter((line) => line.startsWith('VmFlags') && line.includes(' uw '))
      .length,
  }
}

/** The first hold that the recorder asks for ends its copying of the memory; then it hears of every write. */
export function countHolds(target: RecordTarget): () => number {
  const hold = target.hold.bind(target)
  let holds = 0
  target.hold = async (look) => {
    const held = await hold(look)
    holds++
    return held
  }
  return () => holds
}
