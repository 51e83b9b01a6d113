/**
 * An agent in a child process that lives no longer than we do, for the demo, benchmarks and tests: when its standard
 * input ends, because we ended it or were killed, it removes its guests and exits.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { SubpageError } from '../errors.ts'
import { packageRoot } from '../memory/native.ts'
import { AgentClient } from './client.ts'
import { apiSocket } from './state-directory.ts'

export interface EphemeralAgent {
  process: ChildProcess
  client: AgentClient
  stateDirectory: string
  /** Where other agents reach it. */
  address: string
  /** Ends it with its guests. */
  end(): Promise<void>
}

export interface EphemeralOptions {
  stateDirectory: string
  host: string
  listen?: string
  env?: Record<string, string>
  /** A command that runs the agent's, such as `ip netns exec NAME`. */
  prefix?: string[]
}

/** Resolves when the agent answers. @throws SubpageError AGENT_UNREACHABLE with what it said */
export async function startEphemeralAgent(options: EphemeralOptions): Promise<EphemeralAgent> {
  const [command = process.execPath, ...args] = [
    ...(options.prefix ?? []),
    ...[process.execPath, join(packageRoot, 'dist/src/cli/main.js')],
    ...['agent', '--ephemeral', '--state', options.stateDirectory, '--host', options.host],
    ...(options.listen === undefined ? [] : ['--listen', options.listen]),
  ]
  // A process group of its own: a Ctrl-C on our terminal is ours to handle first.
  const arbiter = join(dirname(options.stateDirectory), 'arbiter')
  mkdirSync(arbiter, { recursive: true, mode: 0o700 })
  const child = spawn(command, args, {
    stdio: ['pipe', 'ignore', 'pipe'],
    detached: true,
    // Decisions about guests that live as long as we do: nothing for the machine's own arbiter.
    env: { ...process.env, SUBPAGE_ARBITER: `file:${arbiter}`, ...options.env },
  })
  let said = ''
  let isReady = false
  child.stderr?.setEncoding('utf8')
  const ready = new Promise<void>((resolve, reject) => {
    child.stderr?.on('data', (text: string) => {
      if (isReady) return
      said += text
      isReady = /: ready /.test(said)
      if (isReady) resolve()
    })
    child.once('error', reject)
    child.once('exit', () =>
      reject(new SubpageError('AGENT_UNREACHABLE', `agent ${options.host} ended: ${said.trim()}`)),
    )
  })
  await ready
  const client = new AgentClient(apiSocket(options.stateDirectory))
  const address = (await client.status()).address
  const { stateDirectory } = options
  return { process: child, client, stateDirectory, address, end: () => end(child) }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.stdin?.end()
  await exited
}
