/** Programs of tests that run as processes of their own: Node 20 runs no TypeScript, so they are compiled first. */
import { execFileSync } from 'node:child_process'
import { copyFileSync, symlinkSync } from 'node:fs'
import { join, relative } from 'node:path'
import { packageRoot } from '../../src/memory/native.ts'

/** Compiles a script of this repository and what it imports into a folder. Returns what to give to Node. */
export function compileProgram(script: string, folder: string): string {
  const flags =
    '--ignoreConfig --module nodenext --target es2023 --types node --skipLibCheck --rewriteRelativeImportExtensions --rootDir'
  const args = [...flags.split(' '), packageRoot, '--outDir', folder, script]
  execFileSync(join(packageRoot, 'node_modules/.bin/tsc'), args, { cwd: packageRoot, encoding: 'utf8' })
  copyFileSync(join(packageRoot, 'package.json'), join(folder, 'package.json'))
  for (const needed of ['node_modules', 'build', 'dist'])
    symlinkSync(join(packageRoot, needed), join(folder, needed))
  return join(folder, relative(packageRoot, script).replace(/\.ts$/, '.js'))
}
