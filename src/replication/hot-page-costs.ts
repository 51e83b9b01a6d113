/** What decides whether a page is worth arming (tracking/hot-pages.ts), as this host does it. */
import { compareBytesPerMs } from '../delta/capture-speed.ts'
import { pageBytes } from '../memory/page.ts'
import { writeFaultNs } from '../tracking/accesses.ts'
import type { HotPageCosts } from '../tracking/hot-pages.ts'

/** A system call, and a walk down the page table to its first page. */
const runNs = 400

let measured: HotPageCosts | undefined

/**
 * Found out by doing it, once in the life of a process; takes some 30 ms. A fault is timed in a program of this host: one of a guest
 * that runs with KVM costs more, so that less is gained than could be.
 * @returns undefined where no write can be tracked, so none be timed
 */
export function hotPageCosts(): HotPageCosts | undefined {
  if (measured) return measured
  const faultNs = writeFaultNs()
  if (faultNs === undefined) return undefined
  measured = { faultNs, compareNs: (pageBytes / compareBytesPerMs()) * 1e6, runNs }
  return measured
}
