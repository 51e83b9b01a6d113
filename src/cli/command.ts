/**
 * The form of a command. Help, documentation (docs/cli.md), environment variables and parsing all come from the one
 * table in commands.ts. What only one command needs it imports when it runs: every start loads the whole table.
 */
import type { Output } from './output.ts'

export interface Flag {
  /** As in commander: "--epoch <ms>". */
  form: string
  summary: string
  default?: string
  choices?: string[]
  /** May be given several times; the values come in one, separated by commas. */
  many?: true
}

export interface Invocation {
  args: string[]
  /** Values by flag name in camel case; absent flags are absent. */
  flags: Record<string, string | boolean | undefined>
  /** What came after `--`. */
  rest: string[]
  output: Output
}

export interface Command {
  name: string
  /** As in commander: "<name>" required, "[name]" optional. */
  args: string[]
  summary: string
  /** Longer help, with an example. */
  help: string
  flags: Flag[]
  /** Takes options of another program after `--`; the text names them. */
  rest?: string
  /** Returns the exit status; none means 0. */
  // biome-ignore lint/suspicious/noConfusingVoidType: most commands return nothing
  run(invocation: Invocation): Promise<number | void>
}

/** The value of a flag that has a default or is required. */
export function text(invocation: Invocation, flag: string): string {
  return String(invocation.flags[flag])
}
