/** The table of studies: one line each. What a study needs is loaded when it runs. */
import type { Study } from './study.ts'

export interface StudyEntry {
  /** What it answers, in one line. */
  summary: string
  load(): Promise<Study>
}

export const studies: Readonly<Record<string, StudyEntry>> = {
  density: {
    summary: 'what sharing, patching and compression save on real guests, and what it costs them',
    load: async () => (await import('./density/study.ts')).study,
  },
}
