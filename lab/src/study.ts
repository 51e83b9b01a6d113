/**
 * A study repeats an experiment of a paper, or answers a question with measured figures. It runs on this machine, says what it
 * could not run, and returns one result that is shown as text, JSON and an HTML page.
 */
import type { Report } from 'subpage/report/page'
import type { Terminal } from './report/terminal.ts'

/** quick: about a minute, to see that it works; full: what the study is for. */
export type StudySet = 'quick' | 'full'

export interface StudyOptions {
  set: StudySet
  /** Only these parts (workloads, mostly), by name; every part of the set when left out. */
  only?: readonly string[]
  /** Recordings to take in place of guests; for studies of the table that take some. */
  traces?: readonly string[]
  /** A folder for the recordings that the study makes; they are not kept without it. */
  keep?: string
  /** Progress, for people. */
  note(text: string): void
  /** Somebody wants it to end: stop what was started, and return what was measured until then, or throw. */
  signal: AbortSignal
}

/** Works until it is done or the study is to end: what fails then has failed because of that. */
export async function untilInterrupted(signal: AbortSignal, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

export interface StudyResult {
  /** What --json prints. The last key is `headline`: the few figures that answer the study's question. */
  json: { headline: unknown } & Record<string, unknown>
  text(terminal: Terminal): string
  report: Report
}

export interface Study {
  /** @throws SubpageError BAD_ARGUMENT when `only` names no part */
  run(options: StudyOptions): Promise<StudyResult>
}
