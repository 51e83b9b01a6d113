/** The native addon, and with it the kernel's way of telling which pages were written. */
import { addon } from '../../memory/native.ts'
import { writeFaultNs } from '../../tracking/accesses.ts'
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
        ? item('write tracking', trackPurpose, ...priceOf(reason, writeFaultNs()))
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

/** A first write to a page that is watched, on a machine with nested paging or none below it, takes 1 us; one in a guest of KVM 2 to 3. */
const dearFaultNs = 5_000

/** @param faultNs of the first write to a page that is watched; undefined when it could not be timed */
export function priceOf(
  found: string,
  faultNs: number | undefined,
): [found: string, missing?: Parameters<typeof item>[3]] {
  if (faultNs === undefined) return [found]
  const price = `${found}; a first write to a page takes ${(faultNs / 1000).toFixed(1)} µs`
  if (faultNs < dearFaultNs) return [price]
  return [
    `${price}, where 1 to 3 are usual`,
    {
      otherwise: 'degraded',
      remedy:
        'the hypervisor below this machine makes page faults dear, and guests that write much pay for it at each checkpoint: protect them with longer epochs (--epoch 100ms, or auto), or use a machine with nested paging',
    },
  ]
}
