/**
 * Whoever has run `npm run demo` only, or nothing: every benchmark, every study and the command itself says at once, in one
 * line, which one command brings what it needs.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { studies } from '../lab/src/studies.ts'
import { exitStatus } from '../src/errors.ts'
import { packageRoot } from '../src/package-root.ts'

const folder = mkdtempSync(join(tmpdir(), 'subpage-set-up-'))
const root = join(folder, 'checkout')
afterAll(() => rmSync(folder, { recursive: true }), 60_000)

mkdirSync(root)
for (const part of ['package.json', 'bin', 'scripts', 'lab/package.json', 'lab/workloads'])
  cpSync(join(packageRoot, part), join(root, part), { recursive: true })
for (const part of [
  'dist/src',
  'dist/vendor',
  'dist/bench',
  'dist/test/support',
  'dist/scripts',
  'lab/dist/src',
])
  cpSync(join(packageRoot, part), join(root, part), {
    recursive: true,
    filter: (path) => !/\.(d\.ts|map)$/.test(path),
  })
mkdirSync(join(root, 'node_modules'))
for (const name of readdirSync(join(packageRoot, 'node_modules')).filter((name) => !name.startsWith('.')))
  if (!/^subpage/.test(name))
    symlinkSync(join(packageRoot, 'node_modules', name), join(root, 'node_modules', name))
symlinkSync('..', join(root, 'node_modules/subpage'))
symlinkSync('../lab', join(root, 'node_modules/subpage-lab'))
symlinkSync(join(packageRoot, 'lab/build'), join(root, 'lab/build'))

/** So much has been built. */
function built({ native, guest }: { native: boolean; guest: boolean }): void {
  rmSync(join(root, 'build'), { recursive: true, force: true })
  mkdirSync(join(root, 'build/guest'), { recursive: true })
  if (native) symlinkSync(join(packageRoot, 'build/native'), join(root, 'build/native'))
  if (guest) for (const file of demoFiles) writeFileSync(join(root, 'build/guest', file), '')
}

const demoFiles = ['vmlinuz', 'initrd.gz', 'victim', 'bare']
const nothing = { native: false, guest: false }
const withoutGuest = { native: true, guest: false }
const afterDemo = { native: true, guest: true }

function node(has: typeof nothing, program: string, ...args: string[]) {
  built(has)
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, 'dist', program), ...args], {
    encoding: 'utf8',
    timeout: 20_000,
  })
  return { status, stdout, said: stderr }
}

const names = /bench -- (\S+)/.exec(node(withoutGuest, 'bench/main.js').said)![1]!.split('|')
/** They work on memory alone. */
const withoutGuests = ['delta', 'shadow']
/** Their guests have no operating system, or are simulated. */
const withoutImages = [...withoutGuests, 'dashboard', 'scale']
/** They run programs in a guest. */
const withWorkloads = ['overhead', 'sending']

function expectOneCommand({ status, stdout, said }: ReturnType<typeof node>, command: string) {
  expect(said.trim().split('\n')).toEqual([expect.stringContaining(command)])
  expect(said).toMatch(/\(NOT_SET_UP\)\n$/)
  expect([status, stdout]).toEqual([exitStatus.lacksFeature, ''])
}

describe('benchmarks', () => {
  test('those that are told apart here exist', () => {
    expect(names).toEqual(expect.arrayContaining([...withoutGuests, ...withWorkloads]))
  })

  test.each(names)('%s names what makes the native parts', (name) => {
    expectOneCommand(node(nothing, 'bench/main.js', name, '--tiny'), `npm run build:native --prefix ${root}`)
  })

  test.each(names.filter((name) => !withoutImages.includes(name)))(
    '%s names what makes its guest',
    (name) => {
      expectOneCommand(
        node(withoutGuest, 'bench/main.js', name, '--tiny'),
        `bash ${root}/scripts/build-guest.sh`,
      )
    },
  )

  test.each(withoutGuests)('%s needs no guest', (name) => {
    expect(node(withoutGuest, 'bench/main.js', name, '--tiny')).toMatchObject({ status: 0, said: '' })
  })

  test.each(withWorkloads)('%s names what makes the workloads', (name) => {
    expectOneCommand(node(afterDemo, 'bench/main.js', name, '--tiny'), `${root}/scripts/build-guest.sh all`)
  })

  test('the recorder of epochs does so, too', () => {
    const { status, said } = node(afterDemo, 'scripts/record-epochs.js')
    expect([status, said.trim().split('\n')]).toEqual([
      exitStatus.lacksFeature,
      [expect.stringContaining(`${root}/scripts/build-guest.sh all`)],
    ])
  })
})

const sets = Object.keys(studies).flatMap((name) => ['quick', 'full'].map((set) => [name, set]))
/** The first runs programs of this host, the second boots the demo guest. */
const demoEnough = ['amplification quick', 'pml quick']

describe('studies', () => {
  test('each names what makes the workloads, and starts nothing', () => {
    built(afterDemo)
    const program = `
      import { studies } from ${JSON.stringify(join(root, 'lab/dist/src/studies.js'))}
      for (const [name, set] of ${JSON.stringify(sets.filter((part) => !demoEnough.includes(part.join(' '))))}) {
        const study = await studies[name].load()
        await study.run({ set, note: (text) => console.log(text), signal: new AbortController().signal })
          .then(() => console.log(name, set, 'ran'), ({ code, message }) => console.log(name, set, code, message))
      }`
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
      timeout: 20_000,
    })
    expect(stderr).toBe('')
    const said = stdout.trim().split('\n')
    expect(said).toHaveLength(sets.length - demoEnough.length)
    for (const line of said)
      expect(line).toMatch(/ NOT_SET_UP .*: run bash \S+\/scripts\/build-guest\.sh all$/)
  })

  test('the command says it in one line', () => {
    expectOneCommand(
      node(afterDemo, 'src/cli/main.js', 'study', 'density'),
      `${root}/scripts/build-guest.sh all`,
    )
  })
})

describe('the command', () => {
  const command = (path: string, ...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(path, args, { encoding: 'utf8' })
    return [status, stdout, stderr]
  }

  test('it says how to build it', () => {
    const fresh = join(folder, 'fresh')
    cpSync(join(packageRoot, 'bin'), join(fresh, 'bin'), { recursive: true })
    expect(command(join(fresh, 'bin/subpage'), 'check')).toEqual([
      exitStatus.lacksFeature,
      '',
      `subpage: it has not been built here: run npm run setup --prefix ${fresh} (NOT_SET_UP)\n`,
    ])
  })

  test('it runs through a link', () => {
    symlinkSync(join(root, 'bin/subpage'), join(folder, 'subpage'))
    expect(command(join(folder, 'subpage'), 'help')).toEqual([
      0,
      expect.stringContaining('Usage: subpage'),
      '',
    ])
  })

  test('the demo names what makes its guest', () => {
    expectOneCommand(node(withoutGuest, 'src/cli/main.js', 'demo'), `bash ${root}/scripts/build-guest.sh`)
  })
})
