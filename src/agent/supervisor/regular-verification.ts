/** `protect --verify-every`: compares a guest with its standby from time to time, and says what was found. */
import { asSubpageError } from '../../errors.ts'
import type { Primary } from '../../replication/primary.ts'
import { differences, namedVerification } from '../verified.ts'
import type { GuestProcess } from './hypervisor.ts'

/** As long as the protection lasts. A time at which there is no standby to compare with is left out. */
export function verifyRegularly(
  primary: Primary,
  { hang, record }: Pick<GuestProcess, 'hang' | 'record'>,
  everyMs: number | undefined,
  say: (text: string) => void,
): void {
  if (everyMs === undefined) return
  let under = false
  const timer = setInterval(() => {
    if (under || (primary.state !== 'Protected' && primary.state !== 'Lagging')) return
    under = true
    hang
      .during(primary.verify())
      .finally(() => {
        under = false
      })
      .then((verification) =>
        say(differences(namedVerification(verification, record.machine.disks))[0] ?? 'verified: equal'),
      )
      .catch((error) => say(`verifying failed: ${asSubpageError(error).message}`))
  }, everyMs)
  void primary.finished.finally(() => clearInterval(timer))
}
