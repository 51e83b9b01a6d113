/** Writes a report to where the command line asks for it: one HTML page, a folder of CSV files. */
import { writeFileSync } from 'node:fs'
import { SubpageError } from '../../errors.ts'
import { writeCsvFiles } from './csv.ts'
import { htmlPage, type Report } from './page.ts'

/** @returns what was written, for people. @throws SubpageError BAD_ARGUMENT when it cannot be written */
export function writeReport(report: Report, to: { html?: string; csv?: string }): string[] {
  const written: string[] = []
  if (to.html !== undefined) {
    try {
      writeFileSync(to.html, htmlPage(report))
    } catch (cause) {
      throw new SubpageError('BAD_ARGUMENT', `cannot write ${to.html}: ${(cause as Error).message}`, {
        cause,
      })
    }
    written.push(`wrote ${to.html}`)
  }
  if (to.csv !== undefined)
    written.push(`wrote ${writeCsvFiles(report, to.csv).length} CSV files to ${to.csv}`)
  return written
}
