/**
 * Where the package subpage-lab is, which holds `record`, `report`, `study` and the plugin for QEMU. The product runs without it: it is
 * looked for when something of it is asked for. What it offers the command line is in cli/lab.ts.
 */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { SubpageError } from './errors.ts'
import { packageRoot } from './package-root.ts'
import { release } from './release.ts'

export const labName = 'subpage-lab'

/**
 * @param needing what cannot be done without it
 * @param why it is as good as not there, if it is there
 */
export function labMissing(needing: string, why = 'which is not installed', cause?: unknown): SubpageError {
  const inCheckout = existsSync(join(packageRoot, 'lab/package.json'))
  const how = inCheckout ? `npm run setup --prefix ${packageRoot}` : installation(packageRoot)
  return new SubpageError(
    'LAB_MISSING',
    `${needing} needs the package ${labName} ${release}, ${why}: run ${how}`,
    { cause },
  )
}

/**
 * The command that installs it where this package is, which npm has installed for all programs (PREFIX/lib/node_modules) or for one. What
 * another package manager has installed (/usr/lib/subpage) is that one's: npm would find its dependencies there and change them. So the lab
 * comes with a subpage of its own.
 */
export function installation(root: string): string {
  const modules = dirname(root)
  const where = dirname(modules)
  if (basename(modules) !== 'node_modules')
    return `npm install --prefix ~/${labName} subpage@${release} ${labName}@${release}, and use ~/${labName}/node_modules/.bin/subpage`
  return basename(where) === 'lib'
    ? `npm install --global --prefix ${dirname(where)} ${labName}@${release}`
    : `npm install --prefix ${where} ${labName}@${release}`
}

/** The path of one of its files. @throws SubpageError LAB_MISSING when it is not installed, NOT_SET_UP when it is not built */
export function labFile(file: string, needing: string): string {
  const root = labRoot(needing)
  const path = join(root, file)
  if (existsSync(path)) return path
  throw new SubpageError(
    'NOT_SET_UP',
    `${path} has not been built: run npm run build:native --prefix ${root}`,
  )
}

function labRoot(needing: string): string {
  try {
    // Loaded early: nothing is, a file is looked for.
    return dirname(createRequire(import.meta.url).resolve(`${labName}/package.json`))
  } catch (cause) {
    throw labMissing(needing, undefined, cause)
  }
}
