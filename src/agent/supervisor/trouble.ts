/** What goes wrong with the QEMU of a guest, and is told as events. */
import type { HostFacts } from './host.ts'
import type { GuestProcess } from './hypervisor.ts'

/** Events of a QEMU that hangs or goes on, and of one whose memory has lost its name. */
export function tellOfTrouble(
  { hang, diskErrors, record, ramUnlinked, files, notes }: GuestProcess,
  { events }: HostFacts,
): void {
  notes.follow((text) => events.add(record.name, 'guest', text))
  void ramUnlinked.then(() =>
    events.add(
      record.name,
      'guest',
      `its RAM file ${files.ram} was removed by somebody else: its memory lasts as long as its process, ${record.process.pid}, and everything goes on; keep whatever cleans /dev/shm from files of subpage`,
    ),
  )
  diskErrors.on('failed', ({ disk, what, stops }) =>
    events.add(
      record.name,
      'guest',
      `its disk ${disk}: ${what}; ${stops ? 'the guest stands still until it can be done: make room' : 'the guest is told'}`,
    ),
  )
  hang.on('hung', () => events.add(record.name, 'guest', `hangs: ${hang.reason}`))
  hang.on('answers', (silentMs) =>
    events.add(record.name, 'guest', `answers again, after ${(silentMs / 1000).toFixed(1)} s`),
  )
}
