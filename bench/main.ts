/**
 * `npm run bench -- NAME [--json] [--tiny] [--runs N]`: runs one benchmark. A benchmark is a file that exports `run`; its parameters
 * and a hash of its results are part of what it prints, so that two runs can be compared.
 */
import { argv, stdout } from 'node:process'
import type { Bench } from './bench.ts'

/** One line per benchmark. */
const benches: Readonly<Record<string, () => Promise<{ run: Bench }>>> = {
  checkpoint: () => import('./checkpoint.ts'),
  delta: () => import('./delta.ts'),
  failover: () => import('./failover.ts'),
  overhead: () => import('./overhead.ts'),
  sending: () => import('./sending.ts'),
  shadow: () => import('./shadow.ts'),
  torture: () => import('./torture/torture.ts'),
}

const given = argv.slice(2)
const runsAt = given.indexOf('--runs')
const runs = runsAt < 0 ? undefined : Number(given.splice(runsAt, 2)[1])
const names = given.filter((argument) => !argument.startsWith('--'))
const flags = new Set(given.filter((argument) => argument.startsWith('--')))
const load = names.length === 1 ? benches[names[0]!] : undefined
const wrongRuns = runs !== undefined && !(Number.isInteger(runs) && runs > 0)
if (!load || wrongRuns || [...flags].some((flag) => flag !== '--json' && flag !== '--tiny')) {
  console.error(`usage: bench ${Object.keys(benches).join('|')} [--json] [--tiny] [--runs N]`)
  process.exit(2)
}
const { run } = await load()
const result = await run({ tiny: flags.has('--tiny'), ...(runs !== undefined && { runs }) })
stdout.write(flags.has('--json') ? `${JSON.stringify(result.json, null, 2)}\n` : `${result.text}\n`)
