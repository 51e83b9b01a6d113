/** Runs the built command line as a person or a program would, to its end. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { packageRoot } from '../../src/memory/native.ts'

export interface Finished {
  status: number | null
  /** Standard output. */
  out: string
  /** Standard error. */
  said: string
}

export const mainFile = join(packageRoot, 'dist/src/cli/main.js')

export async function subpage(args: string[], env: Record<string, string> = {}): Promise<Finished> {
  const child = spawn(process.execPath, [mainFile, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  })
  return await finished(child)
}

/** Reads what a program says, to its end. */
export async function finished(child: ChildProcessByStdio<null, Readable, Readable>): Promise<Finished> {
  let [out, said] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text) => {
    out += text
  })
  child.stderr.setEncoding('utf8').on('data', (text) => {
    said += text
  })
  const [status] = await once(child, 'close')
  return { status, out, said }
}
