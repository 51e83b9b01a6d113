/**
 * fuzz TARGET [--seconds S] [--runs N] [--seed N]: runs one of the targets of the parsers in TypeScript. The last line of standard
 * output has executions and findings; what was found goes to standard error, with the seed that repeats it.
 *
 * fuzz seeds FOLDER: writes what the targets of the C core begin with, in a folder for each.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { seeds } from './seeds.ts'
import { fuzz } from './target.ts'
import { targets } from './targets.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: 'string' }, runs: { type: 'string' }, seed: { type: 'string' } },
})
const [name = '', folder] = positionals
if (name === 'seeds' && folder !== undefined) {
  for await (const { target, name, bytes } of seeds()) {
    mkdirSync(join(folder, target), { recursive: true })
    writeFileSync(join(folder, target, name), bytes)
  }
  process.exit()
}
const make = targets[name]
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
  process.stderr.write(`fuzz: ${name} --seed ${finding.seed}: ${stack}\n`)
}
process.stdout.write(`from seed ${seed}: ${refused} were refused\n${executions} ${findings.length}\n`)
process.exitCode = findings.length > 0 ? 1 : 0
