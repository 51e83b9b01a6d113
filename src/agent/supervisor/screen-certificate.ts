/** Screens show the host's certificate, which is renewed while guests run: QEMU reads it when it starts, and when it is told to. */
import type { Credentials } from '../credentials.ts'
import { guarded } from './boundary.ts'
import type { Supervisor } from './supervisor.ts'

const lookEveryMs = 5_000

/** For as long as the process lives. */
export function followCertificate({ host, hosting, name }: Supervisor): void {
  const { credentials } = host.transport
  if (!credentials) return
  // A QEMU that is older than this process may have read an older one: it is told in any case.
  let shown: Credentials | undefined
  // One that hangs answers no sooner for being asked again.
  let asked = false
  const look = async () => {
    const now = credentials()
    const guest = hosting.guest
    if (asked || now === shown || !(guest?.kind === 'running' || guest?.kind === 'standby')) return
    asked = true
    try {
      await guest.qemu.reloadCertificate()
      shown = now
    } finally {
      asked = false
    }
  }
  setInterval(
    () => guarded({ events: host.events, guest: name, doing: 'showing the renewed certificate' }, look),
    lookEveryMs,
  ).unref()
}
