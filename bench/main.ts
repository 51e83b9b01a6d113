/**
 * `npm run bench -- NAME [--json] [--tiny] [--runs N] [--guests N] [--database]`: runs one benchmark. A benchmark is a file that exports `run`; its
 * parameters and a hash of its results are part of what it prints, so that two runs can be compared. What it needs is asked for first.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { argv, env, getuid, stdout } from 'node:process'
import { type BuiltPart, needBuilt } from '../src/built.ts'
import { asSubpageError, SubpageError } from '../src/errors.ts'
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

const given = argv.slice(2)
const [runs, guests] = [takeNumber('--runs'), takeNumber('--guests')]
const names = given.filter((argument) => !argument.startsWith('--'))
const flags = new Set(given.filter((argument) => argument.startsWith('--')))
const entry = names.length === 1 && Object.hasOwn(benches, names[0]!) ? benches[names[0]!] : undefined
const wrongNumber = [runs, guests].some((one) => one !== undefined && !(Number.isInteger(one) && one > 0))
const database = flags.delete('--database')
const wrongGuests = guests !== undefined && (names[0] !== 'torture' || guests > guestsMax || database)
if (
  !entry ||
  wrongNumber ||
  wrongGuests ||
  (database && names[0] !== 'torture') ||
  [...flags].some((flag) => flag !== '--json' && flag !== '--tiny')
) {
  console.error(
    `usage: npm run bench -- ${Object.keys(benches).join('|')} [--json] [--tiny] [--runs N] [--guests N | --database]   (the last two: torture; up to ${guestsMax} guests)`,
  )
  process.exit(2)
}
try {
  needBuilt(...entry.needs)
  if (entry.network) needNetwork(entry.network)
  const { run } = await entry.load()
  const result = await run({
    tiny: flags.has('--tiny'),
    ...(runs !== undefined && { runs }),
    ...(guests !== undefined && { guests }),
    ...(database && { database }),
  })
  stdout.write(flags.has('--json') ? `${JSON.stringify(result.json, null, 2)}\n` : `${result.text}\n`)
} catch (thrown) {
  const { code, message, exit } = asSubpageError(thrown)
  console.error(`bench ${names[0]}: ${message} (${code})`)
  if (code === 'INTERNAL') console.error((thrown as Error).stack)
  process.exit(exit)
}

/** The value of a flag, which is taken from what was given; undefined without the flag. */
function takeNumber(flag: string): number | undefined {
  const at = given.indexOf(flag)
  return at < 0 ? undefined : Number(given.splice(at, 2)[1])
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
