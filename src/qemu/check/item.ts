/** One line of `subpage check`. Each probe in this folder answers with some of them. */
export interface HostItem {
  name: string
  /** `false`: subpage does not work here without it. `degraded`: it works, with less. */
  ok: boolean | 'degraded'
  /** What the probe saw, in words. */
  found: string
  /** What subpage does with it. */
  purpose: string
  /** How to get it; only where something is missing. */
  remedy?: string
}

/** An item that is there, or else is missed as `otherwise` says. */
export function item(
  name: string,
  purpose: string,
  found: string,
  missing?: { otherwise: false | 'degraded'; remedy: string },
): HostItem {
  return missing
    ? { name, ok: missing.otherwise, found, purpose, remedy: missing.remedy }
    : { name, ok: true, found, purpose }
}
