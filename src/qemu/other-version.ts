/**
 * Whether the QEMU of a standby may be of another version than the primary's. A machine type with a version, such as `pc-q35-7.2`, is the
 * same machine in each later release, and its devices' state is written and read as that release did: QEMU's own migration counts on that
 * (its docs/devel/migration). Across major versions nobody has promised it in both directions, and a guest moves back.
 */

/** The machine of `-machine`, without its switches. */
const nameOf = (type: string): string => /^[^,=]+(?=,|$)/.exec(type)?.[0] ?? ''

/** QEMU's and those of distributions, such as `pc-q35-rhel9.4.0`. */
const isVersioned = (name: string): boolean => /^pc-(q35|i440fx)-./.test(name)

/**
 * @param primary the primary's version, as `7.2.22` @param here this host's
 * @param type of the machine, as the primary has started it
 * @returns why not, for people
 */
export function refusalOfVersion(primary: string, here: string, type: string): string | undefined {
  if (primary === here) return undefined
  const [theirs, ours] = [primary, here].map((version) => version.split('.')[0])
  const differ = `the primary runs QEMU ${primary}, this host has ${here}`
  if (theirs !== ours) return `${differ}: install the same major version on both`
  if (!isVersioned(nameOf(type)))
    return `${differ}, and the machine type ${type} may be another machine in each: install the same on both, or start the guest with a type that has a version`
  return undefined
}

/** An alias such as `q35` is what this QEMU takes it for. @param made QEMU's name of what it has made, as `pc-q35-7.2-machine` */
export function settledType(type: string, made: string): string {
  const name = made.replace(/-machine$/, '')
  return nameOf(type) !== '' && isVersioned(name) ? type.replace(nameOf(type), name) : type
}
