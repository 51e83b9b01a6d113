/**
 * Settings from the environment. One rule for all of them: an empty variable counts as not given, a switch is off for 0,
 * false, no and off and on for 1, true, yes and on, and whatever is neither is an error that names the variable.
 */
import { SubpageError } from './errors.ts'

/** Variables that are settings without being options of a command. */
export const otherVariables = [
  'SUBPAGE_CPU',
  'SUBPAGE_ETCD_PASSWORD',
  'SUBPAGE_FAULT',
  'SUBPAGE_QEMU',
  // Of the tests.
  'SUBPAGE_ADDON',
  'SUBPAGE_SIM_COUNT',
  'SUBPAGE_SIM_FIRST',
  'SUBPAGE_SIM_SEED',
  'SUBPAGE_TEST_SEED',
  // What the library that is loaded into QEMU is told (native/shim/environment.h).
  'SUBPAGE_AUX_RAM',
  'SUBPAGE_FRESH_RAM',
  'SUBPAGE_HELD',
  'SUBPAGE_FORGET',
  'SUBPAGE_GUARD_QMP',
  'SUBPAGE_LEASE',
  'SUBPAGE_RAM',
  'SUBPAGE_RAM_BACKENDS',
  'SUBPAGE_SHIM_STATUS',
] as const

/** The value of a variable; undefined when it is absent or empty. */
export function setting(name: string, environment: NodeJS.ProcessEnv = process.env): string | undefined {
  return environment[name] || undefined
}

const words: Record<string, boolean> = {
  '0': false,
  false: false,
  no: false,
  off: false,
  '1': true,
  true: true,
  yes: true,
  on: true,
}

/** Upper and lower case alike. @throws SubpageError BAD_ARGUMENT for a word that is neither on nor off */
export function switchSetting(name: string, environment: NodeJS.ProcessEnv = process.env): boolean {
  const text = setting(name, environment)
  if (text === undefined) return false
  const word = text.trim().toLowerCase()
  if (word === '') return false
  const on = Object.hasOwn(words, word) ? words[word] : undefined
  if (on === undefined)
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${name}=${text} is neither on nor off: write 1, true, yes or on, or 0, false, no or off`,
    )
  return on
}

/** A whole number from `min` on; undefined when it is not given. @throws SubpageError BAD_ARGUMENT */
export function numberSetting(
  name: string,
  min: number,
  environment: NodeJS.ProcessEnv = process.env,
): number | undefined {
  const text = setting(name, environment)
  if (text === undefined) return undefined
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(value) || value < min)
    throw new SubpageError('BAD_ARGUMENT', `${name}=${text} is not a whole number from ${min} on`)
  return value
}

/** The directory of this session (XDG base directories); a relative one is invalid and must be ignored. */
export function runtimeDirectory(environment: NodeJS.ProcessEnv = process.env): string | undefined {
  const path = setting('XDG_RUNTIME_DIR', environment)
  return path?.startsWith('/') ? path : undefined
}

/** A sentence for each variable with our prefix that nothing reads. */
export function unknownSettings(
  options: readonly string[],
  environment: NodeJS.ProcessEnv = process.env,
): string[] {
  const known = [...options, ...otherVariables]
  return Object.keys(environment)
    .filter((name) => name.startsWith('SUBPAGE_') && !known.includes(name))
    .sort()
    .map((name) => {
      const near = known
        .map((other) => ({ other, far: distance(name, other) }))
        .sort((a, b) => a.far - b.far)[0]
      const hint = near !== undefined && near.far <= 2 ? `: did you mean ${near.other}?` : ''
      return `${name} is not a setting of subpage and has no effect${hint}`
    })
}

/** Of Damerau and Levenshtein: insertions, deletions, substitutions and swapped neighbours. */
function distance(a: string, b: string): number {
  const rows = Array.from({ length: a.length + 1 }, (_, i) =>
    Array.from({ length: b.length + 1 }, (_, j) => (i === 0 ? j : j === 0 ? i : 0)),
  )
  for (let i = 1; i <= a.length; i++)
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1
      let least = Math.min(rows[i - 1]![j]! + 1, rows[i]![j - 1]! + 1, rows[i - 1]![j - 1]! + same)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        least = Math.min(least, rows[i - 2]![j - 2]! + 1)
      rows[i]![j] = least
    }
  return rows[a.length]![b.length]!
}

/** A message of whoever started us that is no setting: read once, and not passed on to programs that we start. */
export function takeMessage(name: string): string | undefined {
  const text = process.env[name]
  delete process.env[name]
  return text
}
