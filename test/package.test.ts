/** What `npm pack` gives: all that an installed package needs, nothing of the build, and it runs, with and without the lab. */
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
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { exitStatus } from '../src/errors.ts'
import { packageRoot } from '../src/memory/native.ts'

const folder = mkdtempSync(join(tmpdir(), 'subpage-package-'))
const modules = join(folder, 'node_modules')
const installed = join(modules, 'subpage')
const lab = join(modules, 'subpage-lab')
afterAll(() => rmSync(folder, { recursive: true }))

let files: string[]

beforeAll(() => {
  // The compiled files are those of this source.
  execFileSync('npm', ['run', 'build'], { cwd: packageRoot })
  mkdirSync(modules)
  files = install(packageRoot, installed)
  // Its dependencies lie beside it, as npm places them.
  for (const name of readdirSync(join(packageRoot, 'node_modules')))
    if (!/^(\.|subpage)/.test(name)) symlinkSync(join(packageRoot, 'node_modules', name), join(modules, name))
}, 120_000)

/** Packs and unpacks. @returns the files of the package */
function install(from: string, to: string): string[] {
  const packed = execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], {
    cwd: from,
    encoding: 'utf8',
  })
  const [{ filename, files }] = JSON.parse(packed)
  execFileSync('tar', ['-xzf', filename], { cwd: folder })
  renameSync(join(folder, 'package'), to)
  return files.map(({ path }: { path: string }) => path)
}

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

test('it is a client with types; of the agent it shows nothing else', () => {
  const script = `import { connect, SubpageError } from 'subpage'
    const error = await connect({ state: '/nowhere' }).status().catch((thrown) => thrown)
    console.log(error instanceof SubpageError, error.code)`
  expect(evaluate(script)).toMatchObject({ status: 0, stdout: 'true AGENT_UNREACHABLE\n' })
  expect(files).toContain('dist/src/index.d.ts')
  for (const other of ['dist/src/errors.js', 'agent/agent'])
    expect(evaluate(`import 'subpage/${other}'`).stderr).toContain('ERR_PACKAGE_PATH_NOT_EXPORTED')
})

describe('the lab', () => {
  const trace = join(packageRoot, 'lab/test/analysis/small.trace')
  const ofLab = [
    ['record', '-o', join(folder, 'a.trace'), '--for', '1s', '--', 'sleep', '1'],
    ['report', trace, '--html', 'x'],
    ['study'],
    ['wss', trace],
  ]
  /** What it says of each of these commands: one line, with one code. */
  const said = (commands = ofLab) =>
    commands.map((args) => {
      const { status, stdout, stderr } = run(...args)
      expect([status, stdout]).toEqual([exitStatus.lacksFeature, ''])
      return stderr
    })
  const place = (source: string) => {
    mkdirSync(lab)
    writeFileSync(join(lab, 'package.json'), '{"name":"subpage-lab","type":"module","exports":"./index.js"}')
    writeFileSync(join(lab, 'index.js'), source)
  }
  afterEach(() => rmSync(lab, { recursive: true, force: true }))

  test('without it, its commands say in one line how to get it, and the others work', () => {
    for (const line of said())
      expect(line).toMatch(
        /^subpage: .* which is not installed: run npm install subpage-lab@\S+ .*\(LAB_MISSING\)\n$/,
      )
    expect(JSON.parse(run('study', '--json').stderr).code).toBe('LAB_MISSING')
    expect(run('help').stdout).toMatch(/ record .* report .* study /s)
    expect(run('check', '--json').stderr).toBe('')
  })

  test('one of another release, and one that is broken, is as good as none', () => {
    place(`export default { release: '0.0.0' }`)
    for (const line of said([['study']]))
      expect(line).toMatch(/but the one that is installed is 0\.0\.0: .*\(LAB_MISSING\)\n$/)
    rmSync(lab, { recursive: true })
    place(`import 'no-such-module'`)
    for (const line of said([['study']]))
      expect(line).toMatch(/cannot be loaded \(Cannot find package 'no-such-module'.*LAB_MISSING/)
    expect(run('check', '--json').stderr).toBe('')
  })

  test('with it, they work', () => {
    const labFiles = install(join(packageRoot, 'lab'), lab)
    expect(labFiles.filter((path) => /\.o$|\.lock$|tsbuildinfo|^test\/|^src\//.test(path))).toEqual([])
    expect(run('study').stdout).toContain('amplification')
    expect(run('report', trace)).toMatchObject({ status: 0, stderr: '' })
    expect(run('wss', trace, '--interval', '50ms')).toMatchObject({ status: 0, stderr: '' })
    const path = join(folder, 'a.trace')
    expect(run('record', '-o', path, '--', 'true')).toMatchObject({ status: 0 })
    expect(existsSync(path)).toBe(true)
  })
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
