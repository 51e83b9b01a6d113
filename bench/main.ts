/**
 * `npm run bench -- NAME [--json] [--tiny] [--runs N] [--guests N] [--database MANAGER]`: runs one benchmark. A benchmark is a file that exports `run`; its
 * parameters and a hash of its results are part of what it prints, so that two runs can be compared. What it needs is asked for first.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { env, getuid, stdout } from 'node:process'
import { parseArgs } from 'node:util'
import { type BuiltPart, needBuilt } from '../src/built.ts'
import { asSubpageError, SubpageError } from '../src/errors.ts'
import { managers } from '../test/support/debian-hosts.ts'
import type { Bench } from './bench.ts'

interface Entry {
  load(): Promise<{ run: Bench }>
  needs: readonly BuiltPart[]
  /** Network namespaces: as root, with these programs. */
  network?: readonly string[]
}

/** One line per benchmark. */
const benches: Readonly<Record<string, Entry>> = {
  checkpoint: { load: () => import('./checkpoint.ts'), needs: ['native', 'guest'] },
  dashboard: { load: () => import('./dashboard.ts'), needs: ['native'] },
  delta: { load: () => import('./delta.ts'), needs: ['native'] },
  disk: { load: () => import('./disk.ts'), needs: ['native', 'guest'] },
  failover: { load: () => import('./failover.ts'), needs: ['native', 'guest'] },
  outside: { load: () => import('./outside.ts'), needs: ['native', 'guest'] },
  overhead: {
    load: () => import('./overhead.ts'),
    needs: ['native', 'guest', 'workloads'],
    network: ['ip'],
  },
  scale: { load: () => import('./scale.ts'), needs: ['native'] },
  sending: { load: () => import('./sending.ts'), needs: ['native', 'guest', 'workloads'], network: ['ip'] },
  shadow: { load: () => import('./shadow.ts'), needs: ['native'] },
  size: { load: () => import('./size.ts'), needs: ['native', 'guest'] },
  torture: { load: () => import('./torture/torture.ts'), needs: ['native', 'guest'], network: ['ip', 'nft'] },
}

/** Their memory lies in a /dev/shm of each host (two-hosts.ts). */
const guestsMax = 8

const asked = readArguments()
if (!asked) {
  console.error(
    [
      `usage: npm run bench -- ${Object.keys(benches).join('|')} [--json] [--tiny] [--runs N]`,
      `       npm run bench -- torture [--guests N | --database ${managers.join('|')}] …   (up to ${guestsMax} guests)`,
    ].join('\n'),
  )
  process.exit(2)
}
const { name, entry, json, options } = asked
try {
  needBuilt(...entry.needs)
  if (entry.network) needNetwork(entry.network)
  const { run } = await entry.load()
  const result = await run(options)
  stdout.write(json ? `${JSON.stringify(result.json, null, 2)}\n` : `${result.text}\n`)
} catch (thrown) {
  const { code, message, exit } = asSubpageError(thrown)
  console.error(`bench ${name}: ${message} (${code})`)
  if (code === 'INTERNAL') console.error((thrown as Error).stack)
  process.exit(exit)
}

/** Undefined when they are not understood. */
function readArguments() {
  try {
    const { positionals, values } = parseArgs({
      allowPositionals: true,
      options: {
        json: { type: 'boolean' },
        tiny: { type: 'boolean', default: false },
        runs: { type: 'string' },
        guests: { type: 'string' },
        database: { type: 'string' },
      },
    })
    const [name = '', ...more] = positionals
    const { json, tiny, database } = values
    const [runs, guests] = [numberOf(values.runs), numberOf(values.guests, guestsMax)]
    const manager = managers.find((one) => one === database)
    const ofTorture = guests !== undefined || database !== undefined
    if (!Object.hasOwn(benches, name) || more.length > 0 || (ofTorture && name !== 'torture'))
      return undefined
    if (database !== manager || (guests !== undefined && manager)) return undefined
    const options = {
      tiny,
      ...(runs !== undefined && { runs }),
      ...(guests !== undefined && { guests }),
      ...(manager && { database: manager }),
    }
    return { name, entry: benches[name]!, json, options }
  } catch {
    // Options that there are not.
    return undefined
  }
}

/** @throws Error */
function numberOf(given: string | undefined, most = Number.MAX_SAFE_INTEGER): number | undefined {
  if (given === undefined) return undefined
  const number = Number(given)
  if (!(Number.isInteger(number) && number > 0 && number <= most)) throw new Error('no such number')
  return number
}

function needNetwork(programs: readonly string[]): void {
  const folders = [...(env.PATH ?? '').split(':'), '/usr/sbin', '/sbin']
  const missing = programs.filter((name) => !folders.some((folder) => existsSync(join(folder, name))))
  if (missing.length > 0)
    throw new SubpageError(
      'NOT_SET_UP',
      `the programs ${missing.join(', ')} are missing: run npm run setup -- --tests`,
    )
  if (getuid?.() !== 0) throw new SubpageError('AUTH_REFUSED', 'it makes network namespaces: run it as root')
}
