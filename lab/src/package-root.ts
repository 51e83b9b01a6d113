/** Where subpage-lab lies, as a checkout or installed, and what is built there. */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** Compiled, this file lies a folder deeper. */
const above = dirname(import.meta.dirname)

export const labRoot = existsSync(join(above, 'package.json')) ? above : dirname(above)

export const labRelease: string = JSON.parse(readFileSync(join(labRoot, 'package.json'), 'utf8')).version

/** The path of one of its programs. */
export const labProgram = (name: string): string => join(labRoot, 'build/native', name)

/** The command that makes them. */
export const buildPrograms = `npm run build:native --prefix ${labRoot}`
