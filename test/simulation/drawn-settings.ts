/** The settings of a simulated pair, drawn from its seed. */
import { grains } from '../../src/delta/capture.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { type PauseLimits, pauseLimits } from '../../src/replication/pause-limits.ts'
import type { Sending } from '../../src/replication/sending.ts'
import type { HotPageCosts } from '../../src/tracking/hot-pages.ts'
import { type SeededRandom, seededRandom } from '../support/random.ts'
import type { SimSettings } from './sim-world.ts'

/** Drawn apart from everything else, so that what a seed stands for stays the same. */
function sendingOf(seed: number, tracker: string): Sending {
  const { integer } = seededRandom(seed ^ 0x5eed)
  const pick = <T>(of: readonly T[]) => of[integer(0, of.length - 1)]!
  return {
    reduce: pick([[], ['dictionary'], ['sharing', 'similar'], ['dictionary', 'sharing', 'similar']]),
    blockBytes: pick([64, 1024]),
    compress: pick(['off', 'lz4', 'zstd']),
    speculate: pick(['off', 'auto', 'always']),
    ...shadowOf(pick, tracker),
  }
}

/** Drawn apart, too. */
function limitsOf(seed: number): PauseLimits {
  const { integer } = seededRandom(seed ^ 0x11317)
  return integer(0, 2) === 0 ? { ...pauseLimits, wholePages: integer(0, 4) } : pauseLimits
}

/** Eager, so that few epochs are enough; some leave cold pages between two hot ones, too. */
function hotPagesOf(seed: number): HotPageCosts | undefined {
  const { integer } = seededRandom(seed ^ 0x407)
  return integer(0, 3) === 0 ? undefined : { faultNs: 1000, compareNs: 100, runNs: integer(0, 1) * 150 }
}

function shadowOf(pick: <T>(of: readonly T[]) => T, tracker: string): Sending {
  const kind = pick(['full', 'cache', 'hash'])
  // Not with a tracker that names every page.
  if (kind === 'cache' && tracker !== 'compare')
    return { shadow: { cacheBytes: pick([1, 3, 64]) * pageBytes } }
  return kind === 'hash' ? { shadow: 'hash', grainBytes: pick(grains) } : {}
}

export function settingsOf(random: SeededRandom): SimSettings {
  const chance = (percent: number) => random.integer(1, 100) <= percent
  const pick = <T>(of: readonly T[]) => of[random.integer(0, of.length - 1)]!
  const settings: Omit<SimSettings, 'sending' | 'limits' | 'hotPages' | 'apart'> = {
    pages: random.integer(4, 14),
    stepMs: pick([4, 8, 15]),
    epochMs: pick([25, 40, 100]),
    pauseShareMax: chance(20) ? 0.3 : undefined,
    suspicionMs: pick([100, 250, 500]),
    outputs: chance(8) ? 'free' : 'held',
    chosen: !chance(10),
    sameMachine: chance(10),
    tracker: chance(15) ? 'compare' : 'userfault',
    codec: pick(['line', 'line', 'page', 'xor-rle', 'masked']),
  }
  return {
    ...settings,
    sending: sendingOf(random.seed, settings.tracker),
    limits: limitsOf(random.seed),
    hotPages: hotPagesOf(random.seed),
    apart: random.seed % 2 === 1,
  }
}
