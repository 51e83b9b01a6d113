/** Room for guests. A guest's RAM is a file in /dev/shm on both hosts, and its primary keeps a shadow of it beside. */
import { readFileSync, statfsSync } from 'node:fs'
import { type HostItem, item } from './item.ts'
import { parseMeminfo } from './proc.ts'

const mib = 2 ** 20
/** The demo needs this much of each: RAM and shadow of its guest, and the image on its second host. */
const comfortable = 1024 * mib
const least = 256 * mib

export function checkMemory(): HostItem[] {
  const available = parseMeminfo(readFileSync('/proc/meminfo', 'utf8'), 'MemAvailable') ?? 0
  const { bavail, bsize } = statfsSync('/dev/shm')
  return [
    roomItem('free memory', 'RAM of the guests, and on a primary as much again for the shadow', available, {
      remedy: 'end other programs, or add memory',
    }),
    roomItem('room in /dev/shm', 'holds the RAM of guests and the images of standbys', bavail * bsize, {
      remedy: 'mount -o remount,size=90% /dev/shm (in a container: start it with a larger --shm-size)',
    }),
  ]
}

function roomItem(name: string, purpose: string, bytes: number, { remedy }: { remedy: string }): HostItem {
  const found =
    bytes < 10 * 1024 * mib ? `${Math.floor(bytes / mib)} MiB` : `${Math.floor(bytes / mib / 1024)} GiB`
  if (bytes >= comfortable) return item(name, purpose, found)
  return item(name, purpose, found, { otherwise: bytes < least ? false : 'degraded', remedy })
}
