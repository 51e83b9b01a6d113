/** The targets by name; each is made anew for a run. */
import { cores, images, pluginLogs, traces } from './files.ts'
import { frames } from './frames.ts'
import { qmp } from './qmp.ts'
import type { Target } from './target.ts'

export const targets: Record<string, () => Target | Promise<Target>> = {
  frames: () => frames,
  traces,
  images,
  cores,
  'plugin-logs': pluginLogs,
  qmp,
}
