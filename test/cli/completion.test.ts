/**
 * Completion in real shells: bash and zsh at a terminal, to which a line and a tab are typed, and fish, which says what it would
 * complete. The names of guests are those of the state directory that the line names.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { flagName } from '../../src/cli/command.ts'
import { commands } from '../../src/cli/commands.ts'
import { packageRoot } from '../../src/memory/native.ts'
import { mainFile } from '../support/subpage.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-completion-'))
const state = join(directory, 'state')
const shells = ['bash', 'zsh', 'fish'] as const
type Shell = (typeof shells)[number]

const env = {
  PATH: `${join(directory, 'bin')}:${process.env.PATH}`,
  HOME: directory,
  TERM: 'dumb',
  SUBPAGE_STATE: join(directory, 'other'),
}

beforeAll(() => {
  for (const path of ['state/guests/web-1', 'state/guests/mail', 'other/guests/elsewhere', 'bin', 'files'])
    mkdirSync(join(directory, path), { recursive: true })
  symlinkSync(join(packageRoot, 'bin/subpage'), join(directory, 'bin/subpage'))
  writeFileSync(join(directory, 'files', 'a-trace.spt'), '')
  for (const shell of shells) {
    const { status, stdout } = spawnSync(process.execPath, [mainFile, 'completion', shell], {
      encoding: 'utf8',
      // A script is no text for people, however narrow their terminal.
      env: { ...env, COLUMNS: '40' },
    })
    expect(status).toBe(0)
    writeFileSync(join(directory, `script.${shell}`), stdout)
  }
})
afterAll(() => rmSync(directory, { recursive: true }))

const begin: Record<'bash' | 'zsh', { command: string; set: string }> = {
  bash: { command: 'bash --norc --noprofile -i', set: "PS1='> '; bind 'set bell-style none'" },
  zsh: {
    command: 'zsh -f -i',
    set: "PS1='> '; unsetopt beep; setopt nolistbeep; autoload -U compinit; compinit -u -D",
  },
}

/** What a shell makes of each line and a tab: the line that it has then, which is told in place of being run. */
async function typed(shell: 'bash' | 'zsh', lines: readonly string[]): Promise<string[]> {
  const { command, set } = begin[shell]
  const child = spawn('script', ['-qec', command, '/dev/null'], { cwd: join(directory, 'files'), env })
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (text) => (said += text))
  const told = () => [...said.matchAll(/^got: (.*?)\r?$/gm)].map(([, line]) => line!.trimEnd())
  try {
    child.stdin.write(`${set}; source ${directory}/script.${shell}; echo rea''dy\n`)
    await vi.waitFor(() => expect(said).toMatch(/^ready\r?$/m), { timeout: 20_000 })
    for (const [i, line] of lines.entries()) {
      child.stdin.write(`${line}\t`)
      // To the line's beginning, and to its end.
      child.stdin.write(`\x01echo 'got: \x05'\n`)
      await vi.waitFor(() => expect(told(), said.slice(-300)).toHaveLength(i + 1), { timeout: 20_000 })
    }
    return told()
  } finally {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  }
}

/** What fish offers for this line. */
function offered(line: string): string[] {
  const script = `source ${directory}/script.fish; complete -C ${JSON.stringify(line)}`
  const { stdout, stderr } = spawnSync('fish', ['--no-config', '-c', script], {
    cwd: join(directory, 'files'),
    encoding: 'utf8',
    env,
  })
  expect(stderr).toBe('')
  return stdout.split('\n').flatMap((text) => text.split('\t')[0] || [])
}

/** What one completion makes of a line; the same in every shell. */
const cases: [what: string, line: string, expected: string][] = [
  ['a command', 'subpage unpr', 'subpage unprotect'],
  ['an option', 'subpage protect web --susp', 'subpage protect web --suspicion'],
  ['a choice', 'subpage protect --codec xor', 'subpage protect --codec xor-rle'],
  [
    "a guest of the line's agent",
    `subpage verify --state ${state} ma`,
    `subpage verify --state ${state} mail`,
  ],
  ["a guest of the user's agent", 'subpage status els', 'subpage status elsewhere'],
  ['a guest after what is done', 'subpage density off els', 'subpage density off elsewhere'],
  ['what can be done', 'subpage libvirt pre', 'subpage libvirt prepare'],
  ['a file', 'subpage report a-tr', 'subpage report a-trace.spt'],
  ['a file for an option', 'subpage agent --swap a-tr', 'subpage agent --swap a-trace.spt'],
  ['nothing where anything may stand', 'subpage protect --to els', 'subpage protect --to els'],
]

describe.concurrent('what is typed', () => {
  test.for(['bash', 'zsh'] as const)('in %s', { timeout: 120_000 }, async (shell, { expect }) => {
    const found = await typed(
      shell,
      cases.map(([, line]) => line),
    )
    expect(Object.fromEntries(cases.map(([what], i) => [what, found[i]]))).toEqual(
      Object.fromEntries(cases.map(([what, , expected]) => [what, expected])),
    )
  })
})

test.each(cases)('fish: %s', (_, line, expected) => {
  const last = expected.slice(expected.lastIndexOf(' ') + 1)
  const given = line.slice(line.lastIndexOf(' ') + 1)
  expect(offered(line)).toEqual(last === given ? [] : [last])
})

test('all commands and options of the table are offered, and after them no name twice', () => {
  expect(offered('subpage ').sort()).toEqual([...commands.map(({ name }) => name), 'help'].sort())
  for (const { name, flags } of commands) {
    const options = offered(`subpage ${name} --`)
    for (const flag of flags) expect(options, name).toContain(`--${/--([a-z-]+)/.exec(flag.form)![1]}`)
    expect(flags.map(flagName).length).toBe(flags.length)
  }
  expect(offered('subpage verify elsewhere ')).toEqual([])
})

test.each(shells)('%s: what the script holds is what the shell reads without a complaint', (shell: Shell) => {
  const check = { bash: ['bash', '-n'], zsh: ['zsh', '-n'], fish: ['fish', '--no-execute'] }[shell]
  const { status, stderr } = spawnSync(check[0]!, [...check.slice(1), join(directory, `script.${shell}`)], {
    encoding: 'utf8',
  })
  expect([status, stderr]).toEqual([0, ''])
})

test('names where there is no agent: none, and no error', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [mainFile, 'completion', 'names'], {
    encoding: 'utf8',
    env: { ...env, SUBPAGE_STATE: '', SUBPAGE_API: join(directory, 'nowhere.sock') },
  })
  expect([status, stdout, stderr]).toEqual([0, '\n', ''])
})
