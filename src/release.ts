/** The release, as package.json states it. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from './package-root.ts'

export const release: string = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')).version
