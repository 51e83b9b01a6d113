/**
 * Workloads as files: workloads/NAME.json says which Debian packages a program needs, how its inputs are made, how it is
 * started, driven and found. docs/workloads.md explains the fields. Nothing is downloaded.
 */
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { SubpageError } from 'subpage/errors'
import { type Static, Type } from 'typebox'
import Value from 'typebox/value'
import { labRoot } from '../package-root.ts'
import { inputKinds } from './inputs.ts'

export const workloadKinds = [
  'key-value store',
  'database',
  'compiler',
  'compression',
  'numerics',
  'interpreter',
  'media',
  'bioinformatics',
  'solver',
  'synthetic',
] as const

const strict = { additionalProperties: false }

const Workload = Type.Object(
  {
    kind: Type.Enum([...workloadKinds]),
    about: Type.String({ minLength: 10 }),
    /** Debian package → version it is pinned to. */
    packages: Type.Record(Type.String(), Type.String(), { minProperties: 1 }),
    /** Part of the quick set: needs no package that is not on most hosts. */
    quick: Type.Optional(Type.Boolean()),
    /** File → what it holds; made from a fixed seed. */
    inputs: Type.Optional(
      Type.Record(
        Type.String(),
        Type.Object({ make: Type.Enum([...inputKinds]), size: Type.Integer({ minimum: 1 }) }, strict),
      ),
    ),
    /** Small files as they are. */
    files: Type.Optional(Type.Record(Type.String(), Type.String())),
    /** Shell commands in the workload's folder, before it starts; not recorded. */
    setup: Type.Optional(Type.Array(Type.String())),
    /** The program and its arguments; what is recorded unless `pid` says otherwise. */
    run: Type.Array(Type.String(), { minItems: 1 }),
    stdin: Type.Optional(Type.String()),
    /** Shell command that succeeds once there is something to record; asked again and again. */
    ready: Type.Optional(Type.String()),
    /** Runs while it is recorded, such as a client. */
    drive: Type.Optional(Type.String()),
    /** Prints the pid of the process to record, when it is a child of what `run` starts. */
    pid: Type.Optional(Type.String()),
    /** Lets it run for so long before it is recorded. */
    warmMs: Type.Optional(Type.Integer({ minimum: 0 })),
    /** Shell command that succeeds once the part of interest is over. */
    until: Type.Optional(Type.String()),
    /** Variables beside those that every workload gets. */
    environment: Type.Optional(Type.Record(Type.String(), Type.String())),
  },
  strict,
)

export type Workload = Static<typeof Workload> & { name: string }

const folder = join(labRoot, 'workloads')

/** All of them, by kind and name. @throws SubpageError BAD_ARGUMENT for a file that is not well-formed */
export function workloads(): Workload[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .map((file) => parseWorkload(file.slice(0, -'.json'.length), readFileSync(join(folder, file), 'utf8')))
    .sort(
      (a, b) => workloadKinds.indexOf(a.kind) - workloadKinds.indexOf(b.kind) || (a.name < b.name ? -1 : 1),
    )
}

export function parseWorkload(name: string, text: string): Workload {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (cause) {
    throw new SubpageError('BAD_ARGUMENT', `workload ${name} is not JSON`, { cause })
  }
  if (!Value.Check(Workload, parsed)) {
    const [first] = Value.Errors(Workload, parsed)
    throw new SubpageError(
      'BAD_ARGUMENT',
      `workload ${name}: ${first ? `${first.instancePath || 'it'} ${first.message}` : 'not well-formed'}`,
    )
  }
  return { name, ...parsed }
}

export interface PackageState {
  missing: string[]
  /** Installed in another version than the pinned one: "gcc 13.1 in place of 12.2". */
  differing: string[]
}

export function packagesOf({ packages }: Workload): PackageState {
  const state: PackageState = { missing: [], differing: [] }
  for (const [name, pinned] of Object.entries(packages)) {
    const installed = installedVersion(name)
    if (installed === undefined) state.missing.push(name)
    else if (installed !== pinned) state.differing.push(`${name} ${installed} in place of ${pinned}`)
  }
  return state
}

/** Of dpkg-query(1). */
const format = ['db:Status-Status', 'Version'].map((field) => `\${${field}}`).join(' ')

function installedVersion(name: string): string | undefined {
  try {
    const [status, version] = execFileSync('dpkg-query', ['-W', `-f=${format}`, name], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).split(' ')
    return status === 'installed' ? version : undefined
  } catch {
    // dpkg-query does not know it, or is not there: a host that is not Debian has none of these packages.
    return undefined
  }
}
