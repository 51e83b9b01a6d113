/** The table of studies: one line each. What a study needs is loaded when it runs. */
import type { Study } from './study.ts'

export interface StudyEntry {
  /** What it answers, in one line. */
  summary: string
  load(): Promise<Study>
}

export const studies: Readonly<Record<string, StudyEntry>> = {
  workingset: {
    summary: 'how far off the estimates of working sets are, and what watching costs',
    load: async () => (await import('./working-set/study.ts')).study,
  },
  pml: {
    summary: 'what logging written pages in hardware would cost, and what each tracker costs a guest',
    load: async () => (await import('./pml/study.ts')).study,
  },
}
