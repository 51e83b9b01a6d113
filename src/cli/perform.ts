/** One command line, from its words to its exit status. Nothing of this process is touched but by the command itself. */
import { asSubpageError, exitStatus, SubpageError } from '../errors.ts'
import { columnsOf, wrapText } from '../text-layout.ts'
import { commands } from './commands.ts'
import { createOutput, printError, type Sinks } from './output.ts'
import { parseCommandLine, strangeSettings } from './parse.ts'

/** @param argv without the program's own name */
export async function perform(argv: readonly string[], sinks: Sinks): Promise<number> {
  const parsed = parseCommandLine(argv, commands)
  if (parsed.kind === 'shown') {
    sinks.out.write(wrapText(parsed.out, columnsOf(sinks.out)))
    return exitStatus.ok
  }
  if (parsed.kind === 'wrong') {
    if (parsed.json) printError(new SubpageError('BAD_ARGUMENT', parsed.message), true, sinks.err)
    else sinks.err.write(parsed.said)
    return exitStatus.usage
  }
  const { command, invocation, json } = parsed
  const output = createOutput(json, sinks)
  for (const warning of strangeSettings(commands)) output.warn(warning)
  try {
    return (await command.run({ ...invocation, output })) ?? exitStatus.ok
  } catch (thrown) {
    const error = asSubpageError(thrown)
    printError(error, json, sinks.err)
    if (error.code === 'INTERNAL' && !json) sinks.err.write(`${(thrown as Error).stack}\n`)
    return error.exit
  }
}
