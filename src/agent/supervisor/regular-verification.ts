/** `protect --verify-every`: compares a guest with its standby from time to time, and says what was found. */
import { asSubpageError } from '../../errors.ts'
import type { HangWatch } from '../../qemu/hang-watch.ts'
import type { Primary } from '../../replication/primary.ts'

/** As long as the protection lasts. A time at which there is no standby to compare with is left out. */
export function verifyRegularly(
  primary: Primary,
  hang: HangWatch,
  everyMs: number | undefined,
  say: (text: string) => void,
): void {
  if (everyMs === undefined) return
  let under = false
  const timer = setInterval(() => {
    if (under || (primary.state !== 'Protected' && primary.state !== 'Lagging')) return
    under = true
    const verified = hang.during(primary.verify()).then(
      (verification) => say(differenceText(verification) ?? 'verified: equal'),
      (error) => say(`verifying failed: ${asSubpageError(error).message}`),
    )
    void verified.finally(() => {
      under = false
    })
  }, everyMs)
  void primary.finished.finally(() => clearInterval(timer))
}

/** Undefined: guest and standby are equal. */
export function differenceText({
  difference,
  disks,
}: Awaited<ReturnType<Primary['verify']>>): string | undefined {
  const disk = disks.find(({ difference: at }) => at !== undefined)
  if (difference) return `DIFFERENT: page ${difference.page}, line ${difference.line} of the ${difference.in}`
  if (disk) return `DIFFERENT: disk ${disk.disk}, within the 64 KiB from byte ${disk.difference} on`
  return undefined
}
