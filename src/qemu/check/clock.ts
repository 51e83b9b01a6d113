/** Whether something keeps the clock of this host right. */
import { addon } from '../../memory/native.ts'
import { type HostItem, item } from './item.ts'

export function checkClock(): HostItem[] {
  const name = 'clock'
  const purpose =
    'dates events, and tells whether certificates are valid; decisions about guests do not go by it'
  const synchronized = synchronization()
  if (synchronized) return [item(name, purpose, 'synchronized')]
  const found = synchronized === null ? 'the kernel does not tell whether it is right' : 'not synchronized'
  const remedy =
    'let NTP or PTP keep it right on both hosts, such as systemd-timesyncd or chrony; in a container the host does it'
  return [item(name, purpose, found, { otherwise: 'degraded', remedy })]
}

function synchronization(): boolean | null {
  try {
    return addon.clockSynchronized()
  } catch {
    // Without the addon nothing works, and check says so elsewhere.
    return null
  }
}
