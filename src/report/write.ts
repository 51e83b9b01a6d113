/** Writes a report to where the command line asks for it: one HTML page, a folder of CSV files. */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { SubpageError } from '../errors.ts'
import { checkOutput, makeOutputFolder, writeOutput } from '../output-file.ts'
import { csvFiles } from './csv.ts'
import { htmlPage, type Report } from './page.ts'

export interface ReportPlace {
  html?: string
  csv?: string
  /** Older files give way. */
  replace: boolean
}

/** Before anything is measured. @throws SubpageError FILE_EXISTS, BAD_ARGUMENT, NO_SPACE, OUTPUT_FAILED */
export function checkReportPlace({ html, csv, replace }: ReportPlace): void {
  if (html !== undefined) checkOutput(html, { replace })
  if (csv === undefined) return
  makeOutputFolder(csv)
  const former = readdirSync(csv).find((name) => name.endsWith('.csv'))
  if (former !== undefined && !replace)
    throw new SubpageError(
      'FILE_EXISTS',
      `${csv} has CSV files already (${former}): choose another folder, or replace those of the same name with --force`,
    )
  checkOutput(freeName(csv), { replace: false })
}

function freeName(folder: string): string {
  for (let i = 0; ; i++) {
    const name = join(folder, `.subpage-${i}`)
    if (!existsSync(name)) return name
  }
}

/** @returns what was written, for people. @throws as checkReportPlace */
export function writeReport(report: Report, { html, csv, replace }: ReportPlace): string[] {
  const written: string[] = []
  if (html !== undefined) {
    writeOutput(html, htmlPage(report), { replace })
    written.push(`wrote ${html}`)
  }
  if (csv !== undefined) {
    makeOutputFolder(csv)
    const files = csvFiles(report)
    for (const [name, content] of files) writeOutput(join(csv, name), content, { replace })
    written.push(`wrote ${files.size} CSV files to ${csv}`)
  }
  return written
}
