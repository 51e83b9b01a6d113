/** What `npm pack` gives: all that an installed package needs, nothing of the build, and it runs. */
import { execFileSync, spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { packageRoot } from '../src/memory/native.ts'

const folder = mkdtempSync(join(tmpdir(), 'subpage-package-'))
const modules = join(folder, 'node_modules')
const installed = join(modules, 'subpage')
afterAll(() => rmSync(folder, { recursive: true }))

let files: string[]

beforeAll(() => {
  // The compiled files are those of this source.
  execFileSync('npm', ['run', 'build'], { cwd: packageRoot })
  const packed = execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], {
    cwd: packageRoot,
    encoding: 'utf8',
  })
  const [{ filename, files: list }] = JSON.parse(packed)
  files = list.map(({ path }: { path: string }) => path)
  mkdirSync(modules)
  execFileSync('tar', ['-xzf', filename], { cwd: folder })
  renameSync(join(folder, 'package'), installed)
  // Its dependencies lie beside it, as npm places them.
  for (const name of readdirSync(join(packageRoot, 'node_modules')))
    if (!name.startsWith('.')) symlinkSync(join(packageRoot, 'node_modules', name), join(modules, name))
}, 120_000)

const run = (...args: string[]) =>
  spawnSync(process.execPath, [join(installed, 'dist/src/cli/main.js'), ...args], {
    cwd: folder,
    encoding: 'utf8',
  })

test('it holds sources and results, not what building leaves', () => {
  expect(
    files.filter((path) => /\.o$|\.lock$|tsbuildinfo|^dist\/(?!src\/)|^test\/|^bench\/|\/fuzz\//.test(path)),
  ).toEqual([])
  for (const needed of ['build/native/subpage.node', 'native/addon/addon.c', 'scripts/build-native.sh'])
    expect(files).toContain(needed)
})

test('it says what it can do, and what this host offers', () => {
  expect(run('--help')).toMatchObject({ status: 0, stdout: expect.stringContaining('subpage') })
  const { stdout } = run('check', '--json')
  expect(JSON.parse(stdout)).toHaveProperty('items')
})

test('the demo says what it needs before it starts anything', () => {
  const { status, stderr } = run('demo')
  expect(status).not.toBe(0)
  const lines = stderr.trim().split('\n')
  expect(lines[0]).toContain(join(installed, 'scripts/build-guest.sh'))
  expect(stderr).not.toMatch(/agent|\s+at /)
  expect(existsSync(join(installed, 'scripts/build-guest.sh'))).toBe(true)
})

const evaluate = (script: string) =>
  spawnSync(process.execPath, ['--input-type=module', '-e', script], { cwd: folder, encoding: 'utf8' })

test('it is a client with types, and promises no other module', () => {
  const script = `import { connect, SubpageError } from 'subpage'
    const error = await connect({ state: '/nowhere' }).status().catch((thrown) => thrown)
    console.log(error instanceof SubpageError, error.code)`
  expect(evaluate(script)).toMatchObject({ status: 0, stdout: 'true AGENT_UNREACHABLE\n' })
  expect(files).toContain('dist/src/index.d.ts')
  expect(evaluate("import 'subpage/dist/src/errors.js'").stderr).toContain('ERR_PACKAGE_PATH_NOT_EXPORTED')
})

test('the remedy of a missing addon works where the package is installed', () => {
  rmSync(join(installed, 'build/native/subpage.node'))
  writeFileSync(join(folder, 'image'), new Uint8Array(4096))
  expect(run('density', 'analyze', 'image').stderr).toContain('npm run build:native')
  execFileSync('npm', ['run', 'build:native'], { cwd: installed, stdio: 'pipe' })
  expect(existsSync(join(installed, 'build/native/subpage.node'))).toBe(true)
}, 300_000)

test('no dependency wants a newer Node than the package does', () => {
  const lock = JSON.parse(readFileSync(join(packageRoot, 'package-lock.json'), 'utf8'))
  const wanting = Object.entries<{ dev?: boolean; engines?: { node?: string } }>(lock.packages)
    .filter(([name, { dev }]) => name !== '' && !dev)
    .filter(([, { engines }]) => /^>=\s*(2[1-9]|[3-9]\d)/.test(engines?.node ?? ''))
  expect(wanting.map(([name]) => name)).toEqual([])
})
