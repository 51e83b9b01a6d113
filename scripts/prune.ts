/**
 * Removes compiled files whose source is gone: the compiler leaves them, tests would run them and packages would hold them.
 * A part of the build.
 */
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from '../src/package-root.ts'

for (const [compiled, source] of [
  ['dist', '.'],
  ['lab/dist', 'lab'],
] as const)
  for (const path of readdirSync(join(packageRoot, compiled), { recursive: true, encoding: 'utf8' })) {
    const name = /^(.+)\.(?:js|d\.ts)(?:\.map)?$/.exec(path)?.[1]
    // What is bundled (bundle.ts) has no source here.
    if (
      name !== undefined &&
      !name.startsWith('vendor/') &&
      !existsSync(join(packageRoot, source, `${name}.ts`))
    )
      rmSync(join(packageRoot, compiled, path))
  }
