/**
 * SPECIFICATION.md names for each promise what holds it: tests that exist, never a source file, for a constant holds nothing. A
 * figure that only a benchmark or a study measures is a goal, and is called one.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'

const root = join(import.meta.dirname, '..')

interface Promised {
  what: string
  held: string[]
}

/** The rows of all tables whose last column is "held by"; `held` is what stands there between backquotes. */
function promisesOf(text: string): Promised[] {
  const rows: Promised[] = []
  let inTable = false
  for (const line of text.split('\n')) {
    const cells = line.startsWith('|') ? line.split('|').map((cell) => cell.trim()) : []
    if (cells.length === 0) inTable = false
    else if (cells.at(-2) === 'held by') inTable = true
    else if (inTable && !/^\|[-| ]+\|$/.test(line))
      rows.push({
        what: cells.slice(1, -2).join(' | '),
        held: [...(cells.at(-2) ?? '').matchAll(/`([^`]+)`/g)].map(([, name]) => name ?? ''),
      })
  }
  return rows
}

const inTests = (name: string) => /^(lab\/)?test\//.test(name)
const measures = /^(npm run bench -- \w+|subpage study \w+)/
/** Run tests in other ways than `npm test` does. */
const campaigns = new Set(['npm run fuzz', 'npm run test:matrix'])

/** What is wrong with what holds a promise. */
function problemsOf({ what, held }: Promised): string[] {
  const tests = held.filter((name) => !measures.test(name) && !campaigns.has(name))
  const problems = tests.filter((name) => !inTests(name)).map((name) => `${name} is no test and no benchmark`)
  problems.push(...tests.filter((name) => inTests(name) && !present(name)).map((n) => `no ${n}`))
  if (held.length === 0) problems.push('nothing holds it')
  if (tests.length === 0 && !/goal|figures in docs|docs\//.test(what))
    problems.push('only measured, and not called a goal')
  return problems
}

/** A file, a folder, or a pattern with stars in its last part. */
function present(name: string): boolean {
  if (!name.includes('*')) return existsSync(join(root, name))
  const at = name.lastIndexOf('/')
  const pattern = new RegExp(
    `^${name
      .slice(at + 1)
      .replaceAll('.', '\\.')
      .replaceAll('*', '.*')}$`,
  )
  return readdirSync(join(root, name.slice(0, at))).some((file) => pattern.test(file))
}

describe('SPECIFICATION.md', () => {
  const promises = promisesOf(readFileSync(join(root, 'SPECIFICATION.md'), 'utf8'))

  test('has its tables', () => expect(promises.length).toBeGreaterThan(30))

  for (const promised of promises)
    test(promised.what.slice(0, 100), () => expect(problemsOf(promised)).toEqual([]))

  test.each([
    [{ what: 'x', held: ['src/qemu/qmp.ts'] }, ['src/qemu/qmp.ts is no test and no benchmark']],
    [{ what: 'x', held: ['test/no-such.test.ts'] }, ['no test/no-such.test.ts']],
    [{ what: 'x', held: [] }, ['nothing holds it', 'only measured, and not called a goal']],
    [{ what: 'x', held: ['npm run bench -- delta'] }, ['only measured, and not called a goal']],
    [{ what: 'goal: x', held: ['npm run bench -- delta'] }, []],
  ])('finds what it is for: %j', (promised, problems) => expect(problemsOf(promised)).toEqual(problems))
})
