/**
 * What the package subpage-lab offers the command line, and what stands in its place where it is not installed. Of the lab the product
 * imports this one object and nothing else.
 */
import { errorCode } from '../errors.ts'
import { labMissing, labName } from '../lab.ts'
import { release } from '../release.ts'
import type { Sample } from '../workingset/sample.ts'
import type { Command } from './command.ts'

/** Its commands, and what help says of them whether it is installed or not. */
const summaries = {
  record: 'record what a guest or a process does to its memory',
  report: 'explain what a recording of `subpage record` shows',
  study: 'repeat a published experiment, or answer a question with figures of this machine',
} as const

export type LabCommandName = keyof typeof summaries
export type LabCommand = Omit<Command, 'name' | 'summary'>

/** The default export of subpage-lab. */
export interface Lab {
  /** Of the product that it belongs to: with another one it does not work. */
  release: string
  commands: Readonly<Record<LabCommandName, LabCommand>>
  /** The working set of a recording, for `subpage wss FILE`. @throws SubpageError as readTrace */
  samplesOfRecording(path: string, intervalMs: number): Promise<Sample[]>
}

/** @throws SubpageError LAB_MISSING, in which `needing` is what cannot be done without it */
export async function loadLab(needing: string): Promise<Lab> {
  // A name that the compiler does not follow: the product is built without the lab.
  const name: string = labName
  const { default: lab } = await import(name).catch((cause) => {
    const absent = errorCode(cause) === 'ERR_MODULE_NOT_FOUND' && cause.message.includes(`'${labName}'`)
    throw labMissing(needing, absent ? undefined : `which cannot be loaded (${firstLine(cause)})`, cause)
  })
  if (lab.release === release) return lab
  throw labMissing(needing, `but the one that is installed is ${lab.release}`)
}

const firstLine = (cause: unknown) => String(cause instanceof Error ? cause.message : cause).split('\n')[0]

/** Those of the lab, or commands that say how to get it. */
export async function labCommands(): Promise<Record<LabCommandName, Command>> {
  const lab = await loadLab('').catch(() => undefined) // Each command says why when it is run.
  const command = (name: LabCommandName): Command => ({
    name,
    summary: summaries[name],
    ...(lab?.commands[name] ?? absent(name)),
  })
  return { record: command('record'), report: command('report'), study: command('study') }
}

function absent(name: LabCommandName): LabCommand {
  return {
    args: ['[arguments...]'],
    help: `It is in the package ${labName}, which is not installed.`,
    flags: [],
    rest: 'COMMAND',
    anyOptions: true,
    async run() {
      await loadLab(name)
    },
  }
}
