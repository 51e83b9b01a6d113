/**
 * Finds the guest again that a former supervisor, or an agent of an earlier release, has left. One that hangs keeps nobody
 * waiting.
 */
import { asSubpageError } from '../../errors.ts'
import type { GuestFiles } from '../../qemu/guest-files.ts'
import type { GuestRecord } from '../../qemu/guest-record.ts'
import { guarded } from './boundary.ts'
import type { Host } from './host.ts'
import type { HostedGuest } from './hosted-guest.ts'
import type { GuestProcess } from './hypervisor.ts'
import { RunningGuest } from './running-guest.ts'
import { endLeft } from './standby-guest.ts'
import { UnansweredGuest } from './unanswered-guest.ts'

/** One that begins waits this long for a guest that does not answer at once. */
const soonMs = 2_000

export interface FinderOptions<P extends GuestProcess> {
  name: string
  files: GuestFiles
  host: Host<P>
  /** What it is at this moment. */
  guest: () => HostedGuest<P> | undefined
  become: (guest: HostedGuest<P>) => void
  adopt: (guest: RunningGuest<P>) => RunningGuest<P>
}

/**
 * `found` settles when it is known what the guest is here: it was found, has ended, or counts as hung. `soon`: or after a
 * short while.
 */
export function findAgain<P extends GuestProcess>(
  options: FinderOptions<P>,
): { found: Promise<void>; soon: Promise<void> } {
  const found = find(options)
  const timer = new AbortController()
  // Woken when it is not needed any more.
  const enough = options.host.clock.sleep(soonMs, timer.signal)
  const soon = Promise.race([found, enough]).finally(() => timer.abort())
  return { found, soon }
}

async function find<P extends GuestProcess>(options: FinderOptions<P>): Promise<void> {
  const { files, host, become } = options
  let record: GuestRecord | undefined
  let unanswered: UnansweredGuest | undefined
  try {
    record = host.hypervisor.readRecord(files)
    // A start that was cut short; or a standby: its image may be torn, and the frames that would mend it died with the
    // former supervisor. Its primary seeds anew.
    if (!record || record.waiting) return await endLeft(files, record, host)
    unanswered = new UnansweredGuest(record, files, host)
    become(unanswered)
    await Promise.race([attach(options, unanswered), unanswered.hung])
  } catch (error) {
    lost(options, record, unanswered, error)
  }
}

async function attach<P extends GuestProcess>(
  options: FinderOptions<P>,
  unanswered: UnansweredGuest,
): Promise<void> {
  const { name, record, files } = unanswered
  const { host, guest, become, adopt } = options
  try {
    const qemu = await host.hypervisor.attach(files, record, (step) => unanswered.doing(step))
    // Removed meanwhile, or superseded.
    if (guest() !== unanswered) return qemu?.release()
    if (!qemu) {
      host.hypervisor.freeMemory(files)
      const end = { how: 'died' as const, detail: 'it ended while nobody watched it' }
      return become({ kind: 'ended', name, record, files, end })
    }
    const running = adopt(new RunningGuest(qemu, host))
    host.events.add(name, 'guest', `found again: process ${record.process.pid}`)
    if (record.protection) running.goOnProtecting(record.protection, true)
    // The former supervisor may have died while it ended a protection.
    else
      guarded({ events: host.events, guest: name, doing: 'letting its outputs out' }, () =>
        running.guest.freeOutputs(),
      )
  } catch (error) {
    lost(options, record, unanswered, error)
  } finally {
    unanswered.close()
  }
}

/** One guest that cannot be taken up must not keep others waiting. */
function lost<P extends GuestProcess>(
  { name, files, host, guest, become }: FinderOptions<P>,
  record: GuestRecord | undefined,
  unanswered: UnansweredGuest | undefined,
  error: unknown,
): void {
  if (guest() !== unanswered) return
  const detail = `it could not be found again: ${asSubpageError(error).message}`
  become({ kind: 'ended', name, record, files, end: { how: 'died', detail } })
  host.events.add(name, 'guest', detail)
}
