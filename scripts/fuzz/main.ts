/**
 * fuzz TARGET [--seconds S] [--runs N] [--seed N]: runs one of the targets of the parsers in TypeScript. The last line of standard
 * output has executions and findings; what was found goes to standard error, with the seed that repeats it.
 */
import { parseArgs } from 'node:util'
import { fuzz } from './target.ts'
import { targets } from './targets.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: 'string' }, runs: { type: 'string' }, seed: { type: 'string' } },
})
const make = targets[positionals[0] ?? '']
if (make === undefined) {
  process.stderr.write(`fuzz: there are the targets ${Object.keys(targets).join(', ')}\n`)
  process.exit(2)
}
const seed = values.seed === undefined ? Date.now() % 2 ** 31 : Number(values.seed)
const { executions, refused, findings } = await fuzz(await make(), {
  seed,
  ...(values.seconds === undefined ? {} : { seconds: Number(values.seconds) }),
  ...(values.runs === undefined ? {} : { runs: Number(values.runs) }),
})
for (const finding of findings) {
  const stack = finding.error instanceof Error ? finding.error.stack : String(finding.error)
  process.stderr.write(`fuzz: ${positionals[0]} --seed ${finding.seed}: ${stack}\n`)
}
process.stdout.write(`from seed ${seed}: ${refused} were refused\n${executions} ${findings.length}\n`)
process.exitCode = findings.length > 0 ? 1 : 0
