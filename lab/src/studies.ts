/** The table of studies: one line each. What a study needs is loaded when it runs. */
import type { Study } from './study.ts'

export interface StudyEntry {
  /** What it answers, in one line. */
  summary: string
  /** It records guests, and takes recordings in their place. */
  takesTraces?: true
  load(): Promise<Study>
}

export const studies: Readonly<Record<string, StudyEntry>> = {
  pml: {
    summary: 'what logging written pages in hardware would cost, and what each tracker costs a guest',
    load: async () => (await import('./pml/study.ts')).study,
  },
  workingset: {
    summary: 'how far off the estimates of working sets are, and what watching costs',
    load: async () => (await import('./working-set/study.ts')).study,
  },
  sync: {
    summary: 'what each way of sending less saves, in total and at the end of an epoch',
    takesTraces: true,
    load: async () => (await import('./sync/study.ts')).study,
  },
  amplification: {
    summary: 'how much more whole dirty pages are than what changed in them, for programs of all kinds',
    load: async () => (await import('./amplification/study.ts')).study,
  },
  density: {
    summary: 'what sharing, patching and compression save on real guests, and what it costs them',
    load: async () => (await import('./density/study.ts')).study,
  },
}
