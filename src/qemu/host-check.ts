/**
 * What this host offers: everything is found out by trying it, nothing by comparing versions. The probes are in check/, one
 * file each; they leave nothing behind.
 */
import { checkClock } from './check/clock.ts'
import { checkCpu } from './check/cpu.ts'
import { type HostItem, item } from './check/item.ts'
import { checkKvm, type KvmVerdict } from './check/kvm.ts'
import { checkMemory } from './check/memory.ts'
import { checkPrivileges } from './check/privileges.ts'
import { checkQemu } from './check/qemu.ts'
import { checkShim } from './check/shim.ts'
import { checkTracking } from './check/tracking.ts'

export type { HostItem } from './check/item.ts'

export interface HostReport {
  items: HostItem[]
  /** What `run --accel auto` takes here. */
  accel: 'kvm' | 'tcg'
  /** Nothing is missing that subpage cannot do without. */
  usable: boolean
}

export async function checkHost(): Promise<HostReport> {
  const qemu = await checkQemu()
  const works = qemu.every(({ ok }) => ok !== false)
  const kvm = works ? await checkKvm() : untried
  const items = [
    ...qemu,
    kvmItem(kvm),
    ...(works ? await checkShim() : []),
    ...checkTracking(),
    ...checkCpu(),
    ...checkPrivileges(),
    ...checkClock(),
    ...checkMemory(),
  ]
  return { items, accel: kvm.works ? 'kvm' : 'tcg', usable: items.every(({ ok }) => ok !== false) }
}

const untried: KvmVerdict = {
  works: false,
  found: 'not tried: there is no QEMU to try it with',
  remedy: 'see to QEMU first',
}

function kvmItem(verdict: KvmVerdict): HostItem {
  const purpose = 'runs guests at full speed; without it QEMU translates their code (TCG)'
  return verdict.works
    ? item('KVM', purpose, verdict.found)
    : item('KVM', purpose, verdict.found, { otherwise: 'degraded', remedy: verdict.remedy })
}
