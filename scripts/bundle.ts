/**
 * Bundles the library of schemas into two modules, `dist/vendor/typebox.js` and `typebox-value.js`: it comes as some 700 files, which every
 * agent, supervisor and command would read and link, in a third of the processor time that it takes to start. A part of the build; the
 * imports `#typebox` and `#typebox/value` of package.json lead there.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'vite'
import { packageRoot } from '../src/package-root.ts'

const path = (specifier: string) => fileURLToPath(import.meta.resolve(specifier))
const outDir = join(packageRoot, 'dist/vendor')
const stamp = join(outDir, '.version')
const { version } = JSON.parse(readFileSync(join(packageRoot, 'node_modules/typebox/package.json'), 'utf8'))

if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== version) {
  await build({
    configFile: false,
    root: packageRoot,
    publicDir: false,
    logLevel: 'warn',
    build: {
      outDir,
      emptyOutDir: true,
      minify: false,
      target: 'node20',
      lib: { entry: { typebox: path('typebox'), 'typebox-value': path('typebox/value') }, formats: ['es'] },
    },
  })
  writeFileSync(stamp, version)
}
