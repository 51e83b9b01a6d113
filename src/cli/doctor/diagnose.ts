/**
 * What is wrong with the protection of a guest, from what its agents say of it: the worst first, each with what mends it. A pure function
 * of status; `subpage doctor` asks and prints.
 */

import { clocksOf } from './clocks.ts'
import { type Finding, type Patient, severities } from './finding.ts'
import { certificateOf, disksOf, peerOf, processesOf, speedOf } from './host.ts'
import { contentOf, deciderOf, stateOf } from './state.ts'

export function diagnose(patient: Patient): Finding[] {
  const found = [
    ...stateOf(patient),
    ...contentOf(patient),
    ...deciderOf(patient),
    ...disksOf(patient),
    ...certificateOf(patient.host, patient.now),
    ...processesOf(patient),
    ...speedOf(patient),
    ...peerOf(patient),
    ...clocksOf(patient),
  ]
  const rank = ({ severity }: Finding) => severities.indexOf(severity)
  return found.sort((a, b) => rank(a) - rank(b))
}
