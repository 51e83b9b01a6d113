/**
 * Writes every file that is made from a table in the code; with --check it writes nothing and fails when one differs.
 * Run it as `npm run generate` and `npm run check:generated`, after a build.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { absolute, generated, isCurrent } from './generated/list.ts'

const check = process.argv.includes('--check')
for (const file of generated) {
  if (isCurrent(file)) continue
  if (check) {
    process.stderr.write(
      `${file.path} differs from what the code says: npm run build:ts && npm run generate\n`,
    )
    process.exitCode = 1
  } else {
    mkdirSync(dirname(absolute(file)), { recursive: true })
    writeFileSync(absolute(file), file.render())
    process.stderr.write(`wrote ${file.path}\n`)
  }
}
