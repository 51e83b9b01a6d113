/**
 * What a report of a defect needs, as files: what the agent says, what this host is, and the ends of logs. Nothing that guests hold or
 * print is in it, and what looks like a secret is taken out of every text.
 */
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { cpus, release as kernelRelease, totalmem } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { AgentClient } from '../agent/client.ts'
import { asSubpageError } from '../errors.ts'
import { guestFiles, guestNames } from '../qemu/guest-files.ts'
import { release } from '../release.ts'

/** Of each log, its end. */
const logBytesMax = 256 * 1024
const journalLines = 2000
const programMs = 30_000

export interface BundleFile {
  name: string
  text: string
}

export async function collect(agent: AgentClient, stateDirectory: string | undefined): Promise<BundleFile[]> {
  const { checkHost } = await import('../qemu/host-check.ts')
  const json = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`
  const parts: [string, () => Promise<string>][] = [
    ['versions.json', async () => json(versions())],
    ['check.json', async () => json(await checkHost())],
    ['status.json', async () => json(await agent.status())],
    ['density.json', async () => json(await agent.density())],
    [
      'events.jsonl',
      async () => (await agent.recentEvents()).map((event) => `${JSON.stringify(event)}\n`).join(''),
    ],
    ['journal.txt', journal],
    ...(stateDirectory === undefined ? [] : logsOf(stateDirectory)),
  ]
  const files = await Promise.all(
    parts.map(async ([name, content]): Promise<BundleFile> => {
      // One part that is not to be had must not keep the others.
      const text = await content().catch((error) => `not to be had: ${asSubpageError(error).message}\n`)
      return { name, text: redact(text) }
    }),
  )
  return files.filter(({ text }) => text !== '')
}

function versions() {
  const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } }
  return {
    ...{ subpage: release, node: process.version, kernel: kernelRelease(), architecture: process.arch },
    ...{ glibc: report.header?.glibcVersionRuntime ?? null, system: systemName() },
    ...{ cpu: cpus()[0]?.model ?? '', cores: cpus().length, memoryBytes: totalmem() },
  }
}

function systemName(): string {
  try {
    return /^PRETTY_NAME="?(.*?)"?$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? ''
  } catch {
    // A system that does not say what it is.
    return ''
  }
}

/** Of the unit of packaging/; empty where there is none. */
async function journal(): Promise<string> {
  const args = [
    '--unit',
    'subpage-agent',
    '--lines',
    String(journalLines),
    '--no-pager',
    '--output',
    'short-iso',
  ]
  const run = promisify(execFile)
  // Most hosts that are tried out on have no such unit, or no journal.
  const found = await run('journalctl', args, { timeout: programMs, maxBuffer: 2 ** 26 }).catch(
    () => undefined,
  )
  return found === undefined || /^-- No entries --$/m.test(found.stdout) ? '' : found.stdout
}

/** Of supervisors, QEMUs and the keeper; never a console: that is the guest's. */
function logsOf(stateDirectory: string): [string, () => Promise<string>][] {
  const log = (name: string, path: string): [string, () => Promise<string>] => [name, async () => tail(path)]
  return [
    log('keeper.log', join(stateDirectory, 'keeper.log')),
    ...guestNames(stateDirectory).flatMap((name) => {
      const { supervisor, qemuLog, directory } = guestFiles(stateDirectory, name)
      return [
        log(`guests/${name}/supervisor.log`, supervisor.log),
        log(`guests/${name}/qemu.log`, qemuLog),
        [`guests/${name}/files.txt`, async () => `${readdirSync(directory).sort().join('\n')}\n`] as [
          string,
          () => Promise<string>,
        ],
      ]
    }),
  ]
}

function tail(path: string): string {
  try {
    return readFileSync(path).subarray(-logBytesMax).toString('utf8')
  } catch {
    // There was nothing to say, or the guest has just left.
    return ''
  }
}

const taken = 'REDACTED'

/** What looks like a secret, whoever wrote it: private keys, tokens, and whatever follows a word for one. */
export function redact(text: string): string {
  return text
    .replace(/-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|$)/g, taken)
    .replace(/\b(Bearer|Basic)\s+[\w.~+/=-]{8,}/gi, `$1 ${taken}`)
    .replace(/(\b\w+:\/\/[^\s/:@]*):[^\s/@]+@/g, `$1:${taken}@`)
    .replace(
      /((?<!\/[\w.-]*)(?:password|passwd|passphrase|secret|token|api[-_]?key)(?!-?file|[-_]?id)"?\s*[=:]\s*)("(?:[^"\\]|\\.)*"|[^\s,;&"']+)/gi,
      (_, before: string, value: string) => before + (value.startsWith('"') ? `"${taken}"` : taken),
    )
    .replace(/(\/#)[0-9a-f]{32,}/g, `$1${taken}`)
}
