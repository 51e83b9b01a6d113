/**
 * Who maps a guest's RAM beside its QEMU and its supervisor. Through such a mapping a page that is held elsewhere reads as zeros, and
 * is zeros for the guest from then on: so pages leave a guest's memory only while nobody has the lock, flock(2) on a file of the guest's.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { type FileLock, lockFile } from '../memory/file-lock.ts'
import type { GuestFiles } from './guest-files.ts'

const lookMs = 20
/** How long somebody has to end who was told to, by the guest's record. */
const unreadMs = 30_000

/** @returns undefined when somebody else has it. @throws Error whose `code` is the name of the errno */
export const lockForReading = ({ readers }: GuestFiles): FileLock | undefined => lockFile(readers, 'a', 0o600)

/** @returns false when somebody has it for too long. @throws as lockForReading */
export async function untilUnread(files: GuestFiles): Promise<boolean> {
  for (const until = performance.now() + unreadMs; performance.now() < until; await delay(lookMs)) {
    const lock = lockForReading(files)
    lock?.release()
    if (lock) return true
  }
  return false
}
