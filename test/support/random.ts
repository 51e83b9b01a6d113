/** Reproducible randomness: the seed comes from SUBPAGE_TEST_SEED or is drawn, and is printed with a failure. */
import { numberSetting } from '../../src/environment.ts'

export interface SeededRandom {
  seed: number
  /** Uniform, both ends included. */
  integer(min: number, max: number): number
}

export function seededRandom(
  seed = numberSetting('SUBPAGE_TEST_SEED', 0) ?? Date.now() % 2 ** 31,
): SeededRandom {
  // splitmix32
  let state = seed | 0
  const next = () => {
    state = (state + 0x9e3779b9) | 0
    let z = state
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
    return (z ^ (z >>> 16)) >>> 0
  }
  return { seed, integer: (min, max) => min + (next() % (max - min + 1)) }
}
