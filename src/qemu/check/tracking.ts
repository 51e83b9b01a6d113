/** The native addon, and with it the kernel's way of telling which pages were written. */
import { addon } from '../../memory/native.ts'
import { probeUserfault } from '../../tracking/tracker.ts'
import { type HostItem, item } from './item.ts'

export function checkTracking(): HostItem[] {
  const addonPurpose = 'compares, packs and applies memory; maps the RAM of guests'
  const trackPurpose =
    'names the pages that a guest has written (tracker userfault); without it all RAM is compared'
  try {
    const path = addon.cpuPath()
    const { available, reason } = probeUserfault()
    return [
      item('native addon', addonPurpose, `loads, with its ${path} path`),
      available
        ? item('write tracking', trackPurpose, reason)
        : item('write tracking', trackPurpose, reason, {
            otherwise: 'degraded',
            remedy:
              'boot Linux 6.7 or newer with CONFIG_USERFAULTFD and PAGEMAP_SCAN; a container must not filter userfaultfd',
          }),
    ]
  } catch (error) {
    const found = error instanceof Error ? error.message : String(error)
    const remedy =
      'npm run build:native, with gcc libc6-dev libxxhash-dev liblz4-dev libzstd-dev installed (scripts/setup.sh sees to all of it)'
    return [item('native addon', addonPurpose, found, { otherwise: false, remedy })]
  }
}
