/**
 * What building makes, and the one command that makes it. Whoever needs a part that a set-up for the demo leaves out asks
 * here before anything is started.
 */
import { existsSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { SubpageError } from './errors.ts'
import { packageRoot } from './package-root.ts'

const guestScript = `bash ${join(packageRoot, 'scripts/build-guest.sh')}`

/** Each makes the parts above it, too, but for the native ones. */
const parts = {
  native: {
    files: ['subpage.node', 'shim.so'].map((name) => `native/${name}`),
    command: `npm run build:native --prefix ${packageRoot}`,
  },
  guest: {
    files: ['vmlinuz', 'initrd.gz', 'victim', 'bare'].map((name) => `guest/${name}`),
    command: guestScript,
  },
  workloads: {
    files: ['initrd-workloads.gz', 'node.gz'].map((name) => `guest/${name}`),
    command: `${guestScript} all`,
  },
  'other guest': {
    files: ['vmlinuz-other', 'initrd-other.gz'].map((name) => `guest/${name}`),
    command: `${guestScript} other`,
  },
} as const satisfies Record<string, { files: readonly string[]; command: string }>

export type BuiltPart = keyof typeof parts

const pathOf = (file: string) => join(packageRoot, 'build', file)

/** The command that makes a part. */
export const commandFor = (part: BuiltPart): string => parts[part].command

export const isBuilt = (part: BuiltPart): boolean =>
  parts[part].files.every((file) => existsSync(pathOf(file)))

/** @throws SubpageError NOT_SET_UP with the command that makes them, when one is missing */
export function needBuilt(...wanted: BuiltPart[]): void {
  const missing = Object.keys(parts).filter((part) =>
    wanted.some((other) => other === part && !isBuilt(other)),
  )
  const last = missing.at(-1)
  if (last === undefined) return
  // One command for all of them, but for the native parts: they come first.
  const part = (missing[0] === 'native' ? 'native' : last) as BuiltPart
  const file = parts[part].files.find((file) => !existsSync(pathOf(file)))!
  throw notBuilt(pathOf(file), part)
}

/**
 * Where a built file is.
 * @param file such as guest/initrd.gz; an absolute path is one that was made from those, and stays
 * @throws SubpageError NOT_SET_UP with the command that makes it, when it is missing
 */
export function builtFile(file: string): string {
  const path = isAbsolute(file) ? file : pathOf(file)
  if (existsSync(path)) return path
  const part = Object.keys(parts).find((name) => parts[name as BuiltPart].files.some((one) => one === file))
  throw notBuilt(path, (part ?? 'workloads') as BuiltPart)
}

function notBuilt(path: string, part: BuiltPart): SubpageError {
  return new SubpageError('NOT_SET_UP', `${path} has not been built: run ${commandFor(part)}`)
}
