/** Where subpage lies, as a checkout or installed. */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { SubpageError } from './errors.ts'

/** The folder of package.json: sources, compiled output and an installed package all lie somewhere below it. */
export const packageRoot = findPackageRoot(dirname(fileURLToPath(import.meta.url)))

function findPackageRoot(folder: string): string {
  const manifest = join(folder, 'package.json')
  if (existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).name === 'subpage') return folder
  const parent = dirname(folder)
  if (parent === folder) throw new SubpageError('INTERNAL', 'no package.json of subpage above its own code')
  return findPackageRoot(parent)
}
