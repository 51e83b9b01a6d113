/**
 * The identity of a host, as arbiter and peers know it: its name, a dash, and the first eight digits of its host-id
 * (agent/host.ts). The name is for people and may change; the digits tell hosts apart.
 */

export function sameHost(a: string, b: string): boolean {
  return idOf(a) === idOf(b)
}

const idOf = (claimant: string) => /-([0-9a-f]{8})$/.exec(claimant)?.[1] ?? claimant
