/** The studies of working sets and of density on real guests, ended before their long parts: they return what they have. */

import { htmlPage } from 'subpage/report/page'
import { expect, test } from 'vitest'
import { study as density } from '../../src/density/study.ts'
import { plainTerminal } from '../../src/report/terminal.ts'
import type { Study, StudyResult } from '../../src/study.ts'
import { study as workingSet } from '../../src/working-set/study.ts'

/** Until it begins with what is named so. */
async function runUntil(study: Study, part: string, only: string[]): Promise<StudyResult> {
  const ending = new AbortController()
  const note = (text: string) => {
    if (text === part) ending.abort()
  }
  return await study.run({ set: 'quick', only, note, signal: ending.signal })
}

test('working sets: an estimate beside the truth', async () => {
  const { json, text, report } = await runUntil(workingSet, 'slowdown', ['read 8 MiB'])
  const { cases, errorP95, slowdown } = json.headline as Record<string, number | null>
  expect({ cases, slowdown }).toEqual({ cases: 1, slowdown: null })
  expect(errorP95).toBeLessThan(0.1)
  expect(text({ ...plainTerminal, columns: 160 })).toMatch(/read 8 MiB +\d+\.\d MiB +\d+\.\d MiB/)
  expect(htmlPage(report)).toContain('Errors')
})

test('density: what is saved of the memories of guests', async () => {
  const { json, text, report } = await runUntil(density, 'running guests', ['live'])
  expect(json.headline).toMatchObject({ slowdown: null, rebuildUsP50: null })
  const { savedHomogeneous, savedMixed, savedSharingAndPatching, savedSharingOnly } = json.headline as Record<
    string,
    number
  >
  expect(savedHomogeneous).toBeGreaterThan(0.7)
  expect(savedMixed).toBeGreaterThan(savedSharingAndPatching!)
  expect(savedSharingAndPatching).toBeGreaterThan(savedSharingOnly!)
  expect(text({ ...plainTerminal, columns: 160 })).toContain('+ compression')
  expect(htmlPage(report)).toContain('Saved by technique')
})
