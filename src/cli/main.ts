#!/usr/bin/env node
/** The command line: parses it, runs one command of the table, turns errors into exit statuses. */
import { asSubpageError, exitStatus, SubpageError } from '../errors.ts'
import { columnsOf, wrapText } from '../text-layout.ts'
import { commands } from './commands.ts'
import { createOutput, guardOutput, printError } from './output.ts'
import { parseCommandLine, strangeSettings } from './parse.ts'

async function main(): Promise<void> {
  guardOutput()
  const parsed = parseCommandLine(process.argv.slice(2), commands)
  if (parsed.kind === 'shown') {
    process.stdout.write(wrapText(parsed.out, columnsOf(process.stdout)))
    return
  }
  if (parsed.kind === 'wrong') {
    if (parsed.json) printError(new SubpageError('BAD_ARGUMENT', parsed.message), true)
    else process.stderr.write(parsed.said)
    process.exitCode = exitStatus.usage
    return
  }
  const { command, invocation, json } = parsed
  const output = createOutput(json)
  for (const warning of strangeSettings(commands)) output.warn(warning)
  try {
    process.exitCode = (await command.run({ ...invocation, output })) ?? exitStatus.ok
  } catch (thrown) {
    const error = asSubpageError(thrown)
    printError(error, json)
    if (error.code === 'INTERNAL' && !json) process.stderr.write(`${(thrown as Error).stack}\n`)
    process.exitCode = error.exit
  }
}

await main()
