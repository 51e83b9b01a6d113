/** A command that is interrupted while it is still being loaded says so: until then nothing was begun. Loads next to nothing itself. */
import { ignoredAtStart } from './started-with.ts'

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
/** As in the table of exit statuses, which is not loaded yet. */
const interrupted = 130

/** Until it is disposed of, when the command begins. */
export function untilLoaded(): Disposable {
  const end = () => {
    const [code, message] = ['INTERRUPTED', 'interrupted before it began: nothing was done']
    process.stderr.write(
      process.argv.includes('--json')
        ? `${JSON.stringify({ code, message })}\n`
        : `subpage: ${message} (${code})\n`,
      () => process.exit(interrupted),
    )
  }
  for (const signal of signals) if (!ignoredAtStart(signal)) process.once(signal, end)
  return {
    [Symbol.dispose]: () => {
      for (const signal of signals) process.off(signal, end)
    },
  }
}
