/**
 * Brings the standby's copies of the disks up to the guest's while it runs. Where maps say what may differ, that is read and sent;
 * else all is read and compared with hashes of what the standby has, and what differs is sent.
 */
import type { Guest } from './guest.ts'
import type { PrimarySession } from './primary-session.ts'
import type { Protection } from './protection.ts'

export interface DiskSeeding {
  signal: AbortSignal
  /** The epoch that comes next. */
  next: number
  /** Called when the standby is known to have the first frame, and so no checkpoint any more. */
  forgotten: () => Promise<void>
}

/**
 * Resolves when everything that was there has been fed; what is written from then on goes with the epochs, as long as the
 * connection lasts. When it ends, no write waits for it.
 * @throws SubpageError DISK_FAILED, PEER_UNREACHABLE
 */
export async function seedDisks(
  { guest: { disks }, lineages }: Pick<Protection, 'guest' | 'lineages'>,
  session: PrimarySession,
  { signal, next, forgotten }: DiskSeeding,
): Promise<void> {
  if (disks.sizes.length === 0) return
  session.closed.addEventListener('abort', () => disks.drop())
  // What the connection before has left looks for its writes among the marks, which may go now.
  await disks.end()
  const known = await lineages.agree(session, disks.sizes)
  await disks.begin(known, ({ message }) => session.connection.fail(message))
  await session.disks.seed(AbortSignal.any([signal, session.closed]), async () => {
    await session.probe()
    await forgotten()
  })
  if (session.closed.aborted) throw await session.lost
  // Also while the protection ends: a pause may wait for a write. What it fails of ends the connection, too.
  void session.disks.pump(next, session.closed).catch(() => undefined)
}

/** The protection ends: the disks are the guest's alone. */
export async function leaveDisks({ disks, alive }: Pick<Guest, 'disks' | 'alive'>): Promise<void> {
  disks.drop()
  // A QEMU that ends meanwhile takes its mirrors with it.
  if (alive) await disks.end().catch(() => undefined)
}
