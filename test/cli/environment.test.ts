/**
 * Settings from the environment, over the whole table of commands: what switches a switch on and off, what is as good as
 * not given, and what is named as wrong.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { type Command, flagName, isSwitch, variableOf } from '../../src/cli/command.ts'
import { commands } from '../../src/cli/commands.ts'
import { jsonFlag, parseCommandLine, strangeSettings } from '../../src/cli/parse.ts'
import { numberSetting, otherVariables, runtimeDirectory, setting } from '../../src/environment.ts'

afterEach(() => vi.unstubAllEnvs())

const on = ['1', 'true', 'yes', 'on', 'TRUE', 'On', ' yes ']
const off = ['0', 'false', 'no', 'off', '', 'FALSE', 'Off', ' no ', ' ']
const neither = ['2', '-1', 'y', 'n', 'maybe', 'truee', 'null', 'constructor', '00']

const required = ({ args }: Command) => args.filter((arg) => arg.startsWith('<')).map(() => 'x')
const line = (command: Command) => [command.name, ...required(command)]
const switches = commands.flatMap((command) =>
  [...command.flags, jsonFlag]
    .filter(isSwitch)
    .map((flag) => ({ command, flag, title: `${command.name} ${flag.form}` })),
)

test('the table has switches to try', () => {
  expect(switches.length).toBeGreaterThan(commands.length)
})

describe.each(switches)('$title', ({ command, flag }) => {
  const variable = variableOf(flag)
  const parsed = (...more: string[]) => parseCommandLine([...line(command), ...more], commands)
  const value = (...more: string[]) => {
    const seen = parsed(...more)
    if (seen.kind !== 'run') throw new Error(`${seen.kind}: ${JSON.stringify(seen)}`)
    return seen.invocation.flags[flagName(flag)] === true
  }

  test.each(on)('on for %j', (text) => {
    vi.stubEnv(variable, text)
    expect(value()).toBe(true)
  })

  test.each(off)('off for %j, unless the command line says otherwise', (text) => {
    vi.stubEnv(variable, text)
    expect(value()).toBe(false)
    const option = /--[a-z-]+/.exec(flag.form)![0]
    expect(value(option)).toBe(true)
  })

  test.each(neither)('%j is an error that names the variable', (text) => {
    vi.stubEnv(variable, text)
    const seen = parsed()
    expect(seen).toMatchObject({
      kind: 'wrong',
      message: expect.stringContaining(`${variable}=${text} is neither`),
    })
  })
})

const withValue = commands.flatMap((command) =>
  command.flags
    .filter((flag) => !isSwitch(flag))
    .map((flag) => ({ command, flag, title: `${command.name} ${flag.form}` })),
)

describe.each(withValue)('$title', ({ command, flag }) => {
  const variable = variableOf(flag)
  const name = flagName(flag)
  const given = (argv: string[] = []) => parseCommandLine([...line(command), ...argv], commands)
  const option = /--[a-z-]+/.exec(flag.form)![0]
  const some = flag.choices?.at(-1) ?? 'some'

  test('an empty variable is not given; an empty value on the command line is an error', () => {
    vi.stubEnv(variable, '')
    expect(given()).toMatchObject({ kind: 'run' })
    const seen = given()
    if (seen.kind === 'run') expect(seen.invocation.flags[name]).toBe(flag.default)
    expect(given([option, '']).kind).toBe('wrong')
  })

  test('the variable is as good as the option, which wins; errors name where the value came from', () => {
    vi.stubEnv(variable, some)
    const seen = given()
    expect(seen).toMatchObject({
      kind: 'run',
      invocation: { flags: { [name]: some }, sources: { [name]: variable } },
    })
    const other = flag.choices?.[0] ?? 'other'
    expect(given([option, other])).toMatchObject({
      invocation: { flags: { [name]: other }, sources: { [name]: option } },
    })
    if (!flag.choices) return
    vi.stubEnv(variable, 'none-of-them')
    expect(given()).toMatchObject({ kind: 'wrong', message: expect.stringContaining(variable) })
  })
})

describe('variables with our prefix that nothing reads', () => {
  test('are named, with what they may have meant', () => {
    vi.stubEnv('SUBPAGE_FROCE', '1')
    vi.stubEnv('SUBPAGE_EPOCHS', 'x')
    vi.stubEnv('SUBPAGE_SOMETHING_ELSE', '')
    expect(strangeSettings(commands)).toEqual([
      'SUBPAGE_EPOCHS is not a setting of subpage and has no effect: did you mean SUBPAGE_EPOCH?',
      'SUBPAGE_FROCE is not a setting of subpage and has no effect: did you mean SUBPAGE_FORCE?',
      'SUBPAGE_SOMETHING_ELSE is not a setting of subpage and has no effect',
    ])
  })

  test('those that are read are none of them', () => {
    for (const name of otherVariables) vi.stubEnv(name, '1')
    for (const { flags } of commands) for (const flag of flags) vi.stubEnv(variableOf(flag), '1')
    expect(strangeSettings(commands)).toEqual([])
  })
})

test('numbers and directories of the environment', () => {
  const environment = { A: '', B: '12', C: '1e3', D: '-1', E: '0', XDG_RUNTIME_DIR: 'relative' }
  expect(setting('A', environment)).toBeUndefined()
  expect(numberSetting('A', 0, environment)).toBeUndefined()
  expect(numberSetting('B', 0, environment)).toBe(12)
  for (const [name, min] of [
    ['C', 0],
    ['D', 0],
    ['E', 1],
  ] as const)
    expect(() => numberSetting(name, min, environment)).toThrow(new RegExp(`^${name}=`))
  expect(runtimeDirectory(environment)).toBeUndefined()
  expect(runtimeDirectory({ XDG_RUNTIME_DIR: '/run/user/1' })).toBe('/run/user/1')
})

describe('nothing reads the environment past these rules', () => {
  const root = join(import.meta.dirname, '../..')
  const sources = (folder: string) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((path) => /\.(ts|c|h|sh)$/.test(path))
      .map((path) => join(folder, path))
  /** No settings of ours: what the system has agreed on, and what goes on to programs. */
  const agreed = new Set(['PATH', 'LD_PRELOAD', 'NO_COLOR', 'UV_THREADPOOL_SIZE'])

  test('TypeScript', () => {
    const found = ['src', 'bench', 'scripts']
      .flatMap(sources)
      .flatMap((path) =>
        path === 'src/environment.ts'
          ? []
          : [...readFileSync(join(root, path), 'utf8').matchAll(/process\.env(?:\.(\w+)|\[)/g)].flatMap(
              (match) => (agreed.has(match[1] ?? '') ? [] : [`${path}: ${match[0]}`]),
            ),
      )
    expect(found).toEqual([])
  })

  test('every variable that C and scripts read is known', () => {
    const read = ['native', 'scripts', 'guest']
      .flatMap(sources)
      .flatMap((path) =>
        [
          ...readFileSync(join(root, path), 'utf8').matchAll(
            /(?:getenv|take_variable)\("(SUBPAGE_\w+)"\)|\$\{?(SUBPAGE_\w+)/g,
          ),
        ].map((match) => match[1] ?? match[2]!),
      )
    expect(read).toContain('SUBPAGE_CPU')
    expect(read.filter((name) => !otherVariables.some((known) => known === name))).toEqual([])
  })
})
