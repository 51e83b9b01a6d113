/** What can be completed on a command line, from the table of commands: for the scripts of the shells beside this file. */
import { type Command, type Completes, type Flag, isSwitch } from '../command.ts'
import { jsonFlag } from '../parse.ts'

export interface Option {
  /** Such as `--output`. */
  long: string
  /** Such as `-o`. */
  short: string | undefined
  summary: string
  /** Undefined: it takes none. */
  value: Completes | 'text' | undefined
  many: boolean
}

export interface Line {
  command: string
  summary: string
  options: Option[]
  /** By position; the last one goes on when `more` is set. */
  args: (Completes | 'text')[]
  more: boolean
}

const helpFlag: Flag = { form: '-h, --help', summary: 'display help for command' }

export function linesOf(commands: readonly Command[]): Line[] {
  const names = commands.map(({ name }) => name)
  const lines = commands.map(
    ({ name, summary, flags, args, completes }): Line => ({
      command: name,
      summary,
      options: [...flags, jsonFlag, helpFlag].map(optionOf),
      args: completes ?? args.map(() => 'text'),
      more: args.at(-1)?.endsWith('...]') === true,
    }),
  )
  const help = { command: 'help', summary: 'display help for command', options: [], more: false }
  return [...lines, { ...help, args: [names] }]
}

const files = /<(\w+-)?(files?|dirs?|folder|socket)/

function optionOf(flag: Flag): Option {
  const { form, summary, choices, many } = flag
  const [, short] = /^(-\w), /.exec(form) ?? []
  const value = choices ?? (files.test(form) ? 'file' : 'text')
  return {
    long: /--[a-z-]+/.exec(form)![0],
    short,
    summary,
    value: isSwitch(flag) ? undefined : value,
    many: many === true,
  }
}

/** What has to be passed on for the names of guests, and the variables that stand for it. */
export const whereOptions = ['--state', '--api', '--api-token-file', '--tls-ca'] as const
export const variableFor = (option: string) => `SUBPAGE_${option.slice(2).toUpperCase().replaceAll('-', '_')}`

/** Within single quotes of a shell. */
export const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`
