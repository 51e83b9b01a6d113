/**
 * Brings the standby's copies of the disks up to the guest's while it runs: whoever feeds compares with the hashes of what the
 * standby has, so that what is equal costs reading and no sending.
 */
import type { GuestDisks } from './disks.ts'
import type { PrimarySession } from './primary-session.ts'

/**
 * Resolves when the standby has been sent everything that was there; what is written from then on goes with the epochs.
 * @param first called before the standby's checkpoint is lost by it
 * @throws SubpageError DISK_FAILED, PEER_UNREACHABLE
 */
export async function seedDisks(
  disks: GuestDisks,
  session: PrimarySession,
  signal: AbortSignal,
  first: () => Promise<void>,
): Promise<void> {
  if (disks.sizes.length === 0) return
  const hashes: Uint8Array[] = []
  for (const [disk, bytes] of disks.sizes.entries()) hashes.push(await session.diskHashes(disk, bytes))
  await disks.begin(hashes, ({ message }) => session.connection.fail(message))
  await session.disks.seed(AbortSignal.any([signal, session.closed]), async () => {
    await session.probe()
    await first()
  })
  if (session.closed.aborted) throw await session.lost
}
