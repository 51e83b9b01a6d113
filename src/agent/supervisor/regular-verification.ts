/** `protect --verify-every`: compares a guest with its standby from time to time, and says what was found. */
import { asSubpageError } from '../../errors.ts'
import type { QemuProcess } from '../../qemu/qemu-process.ts'
import type { Primary } from '../../replication/primary.ts'
import { differences, namedVerification } from '../verified.ts'

/** As long as the protection lasts. A time at which there is no standby to compare with is left out. */
export function verifyRegularly(
  primary: Primary,
  { hang, record }: Pick<QemuProcess, 'hang' | 'record'>,
  everyMs: number | undefined,
  say: (text: string) => void,
): void {
  if (everyMs === undefined) return
  let under = false
  const timer = setInterval(() => {
    if (under || (primary.state !== 'Protected' && primary.state !== 'Lagging')) return
    under = true
    const verified = hang.during(primary.verify()).then(
      (verification) =>
        say(differences(namedVerification(verification, record.machine.disks))[0] ?? 'verified: equal'),
      (error) => say(`verifying failed: ${asSubpageError(error).message}`),
    )
    void verified.finally(() => {
      under = false
    })
  }, everyMs)
  void primary.finished.finally(() => clearInterval(timer))
}
