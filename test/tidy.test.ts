/**
 * Holds the few rules of the house (CONTRIBUTING.md, "Rules"). A rule looks at one file at a time and answers with what it found,
 * as file:line; the samples at the end prove that each rule finds what it is for.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join, posix } from 'node:path'
import { describe, expect, test } from 'vitest'

const root = join(import.meta.dirname, '..')
const notOurs = new Set(['node_modules', '.git', 'dist', 'build', 'coverage'])
const linesMax = 350
const openingLinesMin = 15

interface SourceFile {
  /** Relative to the repository, with forward slashes. */
  path: string
  text: string
}
type Rule = (file: SourceFile) => string[]

// ---- rules ----

/** In the order of the design: a room imports only rooms above it. */
const rooms = 'memory tracking delta disk replication qemu libvirt workingset density report agent cli'.split(
  ' ',
)
/** The agent and the CLI may use everything but the CLI. */
const openRooms = new Set(['agent', 'cli'])

const importing =
  /^[ \t]*(?:import|export)\b[^'"`;]*?\bfrom\s*['"]([^'"]+)['"]|^[ \t]*import\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gm

const roomImports: Rule = ({ path, text }) => {
  if (!isTypeScript(path) || !path.startsWith('src/')) return []
  const from = roomOf(path)
  if (from !== undefined && !rooms.includes(from)) return [`${path}:1: ${from}/ is not in the list of rooms`]
  return find({ path, text }, importing, (match) => {
    const target = match[1] ?? match[2] ?? match[3] ?? ''
    if (!target.startsWith('.')) return undefined
    const to = roomOf(posix.join(posix.dirname(path), target))
    if (to === undefined || to === from) return undefined
    if (to === 'cli') return 'nothing may import cli/'
    if (from === undefined || openRooms.has(from) || rooms.indexOf(to) < rooms.indexOf(from)) return undefined
    return `${from}/ may not import ${to}/: a room imports only those above it (${rooms.join(', ')})`
  })
}

/**
 * The lab is a program like any other: it takes of the product what its package gives, by the package's name, and the product does
 * without it. Tests, benchmarks and scripts are of the repository.
 */
const labApart: Rule = ({ path, text }) =>
  !isTypeScript(path) || !/^(src|lab\/src)\//.test(path)
    ? []
    : find({ path, text }, importing, (match) => {
        const target = match[1] ?? match[2] ?? match[3] ?? ''
        const inside = target.startsWith('.') ? posix.join(posix.dirname(path), target) : target
        if (path.startsWith('src/') && /^(lab\/|subpage-lab\b)/.test(inside))
          return 'the product imports nothing of lab/: what the command line takes of it is in cli/lab.ts'
        if (path.startsWith('lab/') && target.startsWith('.') && !inside.startsWith('lab/src/'))
          return "the lab imports the product as any other program would: 'subpage/ROOM/FILE'"
        return undefined
      })

/** Undefined for what lies in src/ itself, which is for all, and for what is outside. */
const roomOf = (path: string) => /^src\/([^/]+)\//.exec(path)?.[1]

const openingComment: Rule = ({ path, text }) => {
  if (!/^(lab\/)?(src|native|test|bench|scripts)\//.test(path) || text.split('\n').length <= openingLinesMin)
    return []
  const body = text.replace(/^#!.*\n/, '').trimStart()
  const opens =
    isTypeScript(path) || /\.[ch]$/.test(path) ? /^\/[*/]/ : /\.(sh|bash|py)$/.test(path) ? /^(#|""")/ : /^/
  return opens.test(body) ? [] : [`${path}:1: open with a comment that says what this file is`]
}

const noSkippedTests: Rule = (file) =>
  isTypeScript(file.path) && /^(lab\/)?test\//.test(file.path)
    ? find(
        file,
        /\b(?:it|test|describe|suite|bench)(?:\.\w+)*\.(?:skip|only|todo|fails|skipIf|runIf)\b|\bx(?:it|test|describe)\(|\b(?:context|ctx)\.skip\(|[{,]\s*(?:skip|only|todo):\s*true/g,
        () => 'a test that does not run proves nothing: make it run, or delete it',
      )
    : []

const noMachinePaths: Rule = (file) =>
  find(file, developerPath(), (match) => `${match[0]} is a path of one machine`)

/** Homes, and the folder that holds this checkout, unless that is one which every system has. */
function developerPath(): RegExp {
  const everywhere =
    /^\/(?:bin|boot|dev|etc|lib|mnt|opt|proc|root|run|sbin|srv|sys|tmp|usr|var)?(?:\/local|\/src)?$/
  const here = [dirname(root), homedir()].filter((folder) => !everywhere.test(folder))
  const literal = here.map((folder) => `${folder.replace(/[^\w/]/g, '\\$&')}(?![\\w-])`)
  return new RegExp(`(?<![\\w.~}*-])(?:/home/\\w+|/Users/\\w+|/root/|${literal.join('|') || '(?!)'})`, 'g')
}

const lockfile: Rule = (file) =>
  file.path.endsWith('package-lock.json')
    ? [
        ...find(
          file,
          /"resolved": "[^"]*[:/]/g,
          () => 'carries no addresses, only the names of workspaces (.npmrc sees to it; write it anew)',
        ),
        ...find(
          file,
          /\/\/[^/"]*(?:registry|artifactory|nexus|npmjs|yarnpkg)[^/"]*/g,
          () => 'names a registry',
        ),
      ]
    : []

const shortFiles: Rule = ({ path, text }) => {
  const lines = text.split('\n').length - 1
  return /^(lab\/)?src\//.test(path) && lines > linesMax
    ? [`${path}:${linesMax}: ${lines} lines, ${linesMax} at most: a file holds one idea`]
    : []
}

/** A comment inside, beside or right above says why nothing is to be done; then it is no longer swallowed. */
const noSwallowedErrors: Rule = (file) =>
  isTypeScript(file.path)
    ? find(
        file,
        /\bcatch\s*(?:\([^)]*\)\s*)?\{\s*\}|\.catch\(\s*(?:\(\w*\)|\w+)\s*=>\s*(?:\{\s*\}|undefined|null|void 0)\s*\)/g,
        (_, line, lineAbove) =>
          line.includes('//') || line.includes('/*') || /^\s*(?:\/\/|\/?\*)/.test(lineAbove)
            ? undefined
            : 'swallows an error: handle it, or say why there is nothing to do',
      )
    : []

/**
 * What has methods gets wrapped, and a wrapper that leaves out an optional member still has the type: what it leaves out is gone
 * without a word. Registries and the options of a call are not wrapped.
 */
const wholeSeams: Rule = ({ path, text }) => {
  const room = roomOf(path)
  const closed = path.startsWith('lab/src/') || (room !== undefined && !openRooms.has(room))
  if (!isTypeScript(path) || !closed) return []
  return find(
    { path, text },
    /^(?:export )?interface (\w+)[^{\n]*\{\n([\s\S]*?)^\}/gm,
    ([, name, body = '']) => {
      const optional = /^ {2}(?:readonly )?(\w+)\?[:(]/m.exec(body)?.[1]
      if (
        optional === undefined ||
        !/^ {2}\w+(?:<[^\n]*>)?\(/m.test(body) ||
        /(Options|Entry)$/.test(name ?? '')
      )
        return undefined
      return `${name}.${optional} is optional: require it, as "| undefined", so that a wrapper cannot drop it unseen`
    },
  )
}

/** It jumps, and no two hosts have the same: what hangs on time takes the clock of replication/clock.ts. */
const noWallClock: Rule = (file) =>
  /^src\/(?:tracking|replication|qemu|agent)\//.test(file.path)
    ? find(file, /\bDate\.now\b|\bnew Date\(\)|\bDate\(\)/g, (_, line, lineAbove) =>
        /wall clock/i.test(line + lineAbove)
          ? undefined
          : 'is the wall clock, which nothing may hang on: take a Clock, or say in a comment for whom the wall clock is',
      )
    : []

/** One import of the other kind, and every process reads all of its files again. */
const bundledSchemas: Rule = (file) =>
  file.path.startsWith('src/')
    ? find(file, /from 'typebox/g, () => "comes as some 700 files: import '#typebox' (scripts/bundle.ts)")
    : []

/**
 * An agent and supervisors run on while an upgrade replaces their files: what they load later is of another release. The command line loads
 * what a command needs when it begins.
 */
const noLateLoads: Rule = (file) =>
  /^src\/(?!cli\/)/.test(file.path)
    ? find(file, /(?<!typeof )\bimport\(|\bcreateRequire\(/g, (_, line, lineAbove) =>
        /loaded early/i.test(line + lineAbove)
          ? undefined
          : 'may load a file of another release after an upgrade: import it with the file, or say in a comment why it is loaded early',
      )
    : []

const rules: Record<string, Rule> = {
  'a room imports only rooms above it': roomImports,
  'product and lab are apart': labApart,
  'a file opens by saying what it is': openingComment,
  'every test runs': noSkippedTests,
  'no path of one machine': noMachinePaths,
  'the lockfile names packages, not places': lockfile,
  'files are short': shortFiles,
  'no error is swallowed': noSwallowedErrors,
  'a seam has no optional member': wholeSeams,
  'nothing hangs on the wall clock': noWallClock,
  'the library of schemas is the bundled one': bundledSchemas,
  'what runs on through an upgrade loads nothing late': noLateLoads,
}

// ---- what they stand on ----

const isTypeScript = (path: string) => /\.[mc]?tsx?$/.test(path)

/** `judge` says what is wrong with a match, or undefined. */
function find(
  { path, text }: SourceFile,
  pattern: RegExp,
  judge: (match: RegExpExecArray, line: string, lineAbove: string) => string | undefined,
): string[] {
  const lines = text.split('\n')
  return [...text.matchAll(pattern)].flatMap((match) => {
    const index = text.slice(0, match.index).split('\n').length - 1
    const wrong = judge(match, lines[index] ?? '', lines[index - 1] ?? '')
    return wrong === undefined ? [] : [`${path}:${index + 1}: ${wrong}`]
  })
}

function* files(folder = ''): Generator<SourceFile> {
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = posix.join(folder, entry.name)
    if (entry.isDirectory() && !notOurs.has(entry.name)) yield* files(path)
    // Binary files hold a NUL early on; none of the rules is for them.
    else if (entry.isFile()) {
      const text = readFileSync(join(root, path), 'utf8')
      if (!text.slice(0, 8192).includes('\0')) yield { path, text }
    }
  }
}

// ---- the tests ----

const itself = 'test/tidy.test.ts'
const all = [...files()].filter(({ path }) => path !== itself)

describe('tidy', () => {
  for (const [name, rule] of Object.entries(rules))
    test(name, () => expect(all.flatMap(rule).join('\n')).toBe(''))
})

describe('each rule finds what it is for, and lets the rest pass', () => {
  const long = '\n'.repeat(400)
  const samples: [rule: Rule, path: string, text: string, findingCount: number][] = [
    [roomImports, 'src/memory/a.ts', "import { b } from '../delta/b.ts'", 1],
    [roomImports, 'src/memory/deep/a.ts', "import type {\n  B,\n} from '../../delta/b.ts'", 1],
    [roomImports, 'src/memory/a.ts', "const b = await import('../qemu/b.ts')", 1],
    [roomImports, 'src/memory/a.ts', "export * from '../qemu/b.ts'", 1],
    [roomImports, 'src/memory/a.ts', "import '../qemu/b.ts'", 1],
    [roomImports, 'src/agent/a.ts', "import { b } from '../cli/b.ts'", 1],
    [roomImports, 'src/index.ts', "import { b } from './cli/b.ts'", 1],
    [roomImports, 'src/drawer/a.ts', '', 1],
    [roomImports, 'src/qemu/a.ts', "import { b } from '../memory/b.ts'\nimport { c } from '../errors.ts'", 0],
    [roomImports, 'src/agent/a.ts', "import { b } from '../report/b.ts'\nimport { c } from './cli/c.ts'", 0],
    [
      labApart,
      'src/cli/a.ts',
      "import { b } from '../../lab/src/b.ts'\nconst c = await import('subpage-lab/c')",
      2,
    ],
    [
      labApart,
      'lab/src/a.ts',
      "import { b } from '../../src/b.ts'\nimport type { C } from '../test/c.ts'",
      2,
    ],
    [labApart, 'lab/src/deep/a.ts', "import { b } from 'subpage/memory/b'\nimport { c } from '../c.ts'", 0],
    [openingComment, 'src/a.ts', `import 'x'${long}`, 1],
    [openingComment, 'lab/src/a.ts', `import 'x'${long}`, 1],
    [openingComment, 'native/a.c', `#include <x.h>${long}`, 1],
    [openingComment, 'scripts/a.sh', `#!/bin/sh\nset -e${long}`, 1],
    [openingComment, 'scripts/a.sh', `#!/bin/sh\n# What it is.${long}`, 0],
    [openingComment, 'src/a.ts', `/** What it is. */${long}`, 0],
    [noSkippedTests, 'test/a.test.ts', 'test.skip(x)\ndescribe.concurrent.only(x)\nit.todo(x)\nxit(x)', 4],
    [noSkippedTests, 'test/a.test.ts', 'test(x, { skip: true })\ntest.each(x)', 1],
    [noMachinePaths, 'docs/a.md', 'see /home/ann/subpage and /root/x', 2],
    [noMachinePaths, 'docs/a.md', 'see /var/lib/subpage and https://example.org/home', 0],
    [lockfile, 'package-lock.json', '"resolved": "https://registry.example/x"', 2],
    [lockfile, 'package-lock.json', '"resolved": ""\n"resolved": "lab"', 0],
    [lockfile, 'package-lock.json', '"url": "https://opencollective.com/x"', 0],
    [wholeSeams, 'src/delta/a.ts', 'export interface A {\n  readonly b?: B\n  c(d: number): void\n}\n', 1],
    [wholeSeams, 'src/delta/a.ts', 'interface A<T> extends B {\n  b<U>(u: U): T\n  c?(): void\n}\n', 1],
    [wholeSeams, 'src/delta/a.ts', 'interface A {\n  b: B | undefined\n  c(d?: number): void\n}\n', 0],
    [wholeSeams, 'src/delta/a.ts', 'interface A {\n  b?: B\n}\ninterface C {\n  d(): void\n}\n', 0],
    [wholeSeams, 'src/delta/a.ts', 'interface AOptions {\n  b?: B\n  note(text: string): void\n}\n', 0],
    [shortFiles, 'src/a.ts', long, 1],
    [noWallClock, 'src/agent/a.ts', 'a = Date.now()\nb = new Date()', 2],
    [noWallClock, 'src/agent/a.ts', 'a = Date.now() // the wall clock, for people\nb = new Date(c)', 0],
    [noLateLoads, 'src/agent/a.ts', "const { b } = await import('./b.ts')\ncreateRequire(c)(d)", 2],
    [
      noLateLoads,
      'src/agent/a.ts',
      "// Loaded early: why.\nawait import('./b.ts')\ntype B = typeof import('b')",
      0,
    ],
    [noLateLoads, 'src/cli/a.ts', "await import('./b.ts')", 0],
    [noWallClock, 'lab/src/a.ts', 'a = Date.now()', 0],
    [
      noSwallowedErrors,
      'src/a.ts',
      'try { a() } catch {}\ntry { a() } catch (e) {\n}\na().catch(() => {})',
      3,
    ],
    [noSwallowedErrors, 'src/a.ts', 'a().catch(() => undefined)', 1],
    [
      noSwallowedErrors,
      'src/a.ts',
      '// It is gone already.\na().catch(() => {})\ntry {} catch { /* why */ }',
      0,
    ],
  ]
  for (const [rule, path, text, findingCount] of samples)
    test(`${rule.name}, ${path}: ${JSON.stringify(text.trim())}`, () =>
      expect(rule({ path, text })).toHaveLength(findingCount))
})
