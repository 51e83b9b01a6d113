/** What is measured by turns begins with another one in each round: none has the place after the same other one every time. */
export function turned<T>(all: readonly T[], round: number): T[] {
  return all.map((_, index) => all[(index + round) % all.length]!)
}
