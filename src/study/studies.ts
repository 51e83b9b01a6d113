/** The table of studies: one line each. What a study needs is loaded when it runs. */
import type { Study } from './study.ts'

export interface StudyEntry {
  /** What it answers, in one line. */
  summary: string
  load(): Promise<Study>
}

export const studies: Readonly<Record<string, StudyEntry>> = {
  amplification: {
    summary: 'how much more whole dirty pages are than what changed in them, for programs of all kinds',
    load: async () => (await import('./amplification/study.ts')).study,
  },
}
