/** The order of a series of faults. */
import type { SeededRandom } from '../../test/support/random.ts'

/** Draws from a bag until it is empty. */
export function shuffled<T>(values: readonly T[], random: SeededRandom): T[] {
  const left = [...values]
  return values.flatMap(() => left.splice(random.integer(0, left.length - 1), 1))
}
