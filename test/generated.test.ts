/** What is generated is what the code says; `npm run generate` makes it so. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { absolute, generated } from '../scripts/generated/list.ts'

describe('generated files', () => {
  for (const file of generated)
    test(file.path, () => expect(readFileSync(absolute(file), 'utf8')).toBe(file.render()))
})
