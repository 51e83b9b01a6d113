/** What is generated is what the code says; `npm run generate` makes it so. */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { absolute, generated } from '../scripts/generated/list.ts'
import { commands } from '../src/cli/commands.ts'
import { packageRoot } from '../src/memory/native.ts'

describe('generated files', () => {
  for (const file of generated)
    test(file.path, () => expect(readFileSync(absolute(file), 'utf8')).toBe(file.render()))
})

describe('man pages', () => {
  const pages = generated.filter(({ path }) => path.startsWith('man/'))

  test('one for each command, and one for all of them', () => {
    const expected = ['subpage', ...commands.map(({ name }) => `subpage-${name}`)]
    expect(pages.map(({ path }) => path)).toEqual(expected.map((name) => `man/${name}.1`))
    expect(readdirSync(join(packageRoot, 'man')).sort()).toEqual(expected.map((name) => `${name}.1`).sort())
  })

  test('groff reads them without a warning, and they show every option', () => {
    const args = ['-man', '-Tutf8', '-ww', '-P-cbou', ...pages.map(absolute)]
    const { status, stdout, stderr } = spawnSync('groff', args, { encoding: 'utf8', maxBuffer: 2 ** 24 })
    expect([status, stderr]).toEqual([0, ''])
    const wide = stdout.split('\n').filter((line) => line.length > 80)
    // Examples stay as they are.
    expect(wide.filter((line) => !/^ {11}/.test(line))).toEqual([])
    const text = stdout.replace(/\u2010\n\s*/g, '').replace(/\s+/g, ' ')
    for (const { name, summary, flags } of commands) {
      expect(text).toContain(`subpage-${name} - ${summary}`)
      for (const { form } of flags) expect(text, name).toContain(form.replace(/[<>]/g, ''))
    }
  })

  test('man finds a page by its file', () => {
    const { status, stdout } = spawnSync('man', ['-l', join(packageRoot, 'man/subpage.1')], {
      encoding: 'utf8',
      env: { ...process.env, MANWIDTH: '80', MANPAGER: 'cat' },
    })
    expect(status).toBe(0)
    expect(stdout).toMatch(/^SUBPAGE\(1\)/)
  })
})
