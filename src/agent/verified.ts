/** What `verify` has found, with the names that people know, and in words. */
import type { Disk } from '../qemu/disk.ts'
import type { Primary } from '../replication/primary.ts'
import type { Verified } from './status.ts'

export function namedVerification(
  { disks, ...memory }: Awaited<ReturnType<Primary['verify']>>,
  named: readonly Pick<Disk, 'name'>[],
): Verified {
  return { ...memory, disks: disks.map(({ disk, ...found }) => ({ name: named[disk]!.name, ...found })) }
}

/** What differs, the first of each; none: guest and standby are equal. */
export function differences({ difference, disks }: Pick<Verified, 'difference' | 'disks'>): string[] {
  const memory = difference
    ? [`DIFFERENT: page ${difference.page}, line ${difference.line} of the ${difference.in}`]
    : []
  return [
    ...memory,
    ...disks.flatMap(({ name, difference: at }) =>
      at === undefined ? [] : [`DIFFERENT: disk ${name}, within the 64 KiB from byte ${at} on`],
    ),
  ]
}
