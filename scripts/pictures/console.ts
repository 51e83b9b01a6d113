/** The screen of a whole Debian before and after its host is lost: what it prints goes on. */
import { setTimeout as delay } from 'node:timers/promises'
import { DebianPair } from '../../test/support/debian-pair.ts'
import { keep } from './picture.ts'

/** A line a second: the time, and what the guest has been running. */
const loop = `printf "\\\\033[2J\\\\033[HA Debian under the load of pgbench, protected to another host\\\\n"
  while sleep 1; do echo "$(date +%T)  up $(cut -d. -f1 /proc/uptime) s"; done`
const lines = { before: 9, after: 6 }

export async function takeConsole(): Promise<void> {
  await using pair = await DebianPair.start()
  await pair.protect()
  await pair.load()
  await pair.command(
    `systemd-run --quiet --unit=watch --property=StandardOutput=tty --property=TTYPath=/dev/tty1 sh -c '${loop}'`,
  )
  await delay(lines.before * 1000)
  keep(await pair.screen(), 'console-before')
  const { problems } = await pair.kill('QEMU')
  if (problems.length > 0) throw new Error(problems.join('; '))
  await delay(lines.after * 1000)
  keep(await pair.screen(), 'console-after')
}
