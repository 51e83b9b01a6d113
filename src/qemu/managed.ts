/** A machine that is started by somebody else than subpage, who manages the machines of a host (libvirt). */
import { readlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type Static, Type } from '#typebox'

export const Managed = Type.Object(
  {
    /**
     * The manager's own description of the machine; both hosts start it by this one. It does not say where a host keeps the disks
     * that are written.
     */
    description: Type.String({ maxLength: 48 * 1024 }),
    /** QEMU's names of the network backends, in order. */
    netdevs: Type.Array(Type.String({ pattern: '^host[\\w-]{1,40}$' }), { maxItems: 8 }),
    /** The manager starts it with the host; not while it is protected. */
    autostart: Type.Boolean(),
  },
  { additionalProperties: false },
)
export type Managed = Static<typeof Managed>

/**
 * Files that are opened for writing are named without our link: whoever opens them follows none, since the directory that they are in
 * belongs to QEMU's user. There is also what QEMU and we make while the guest runs: QEMU's user may not enter our own directory.
 */
export function withoutLinks<Files extends Shared>(files: Files): Files {
  const lease = targetOf(files.lease)
  if (lease === files.lease) return files
  const there = dirname(lease)
  return {
    ...files,
    lease,
    forget: targetOf(files.forget),
    mirror: (index: number) => join(there, `disk${index}.sock`),
    disksSocket: join(there, 'disks.sock'),
    picture: join(there, 'screen.png'),
  }
}

interface Shared {
  lease: string
  forget: string
  mirror: (index: number) => string
  disksSocket: string
  picture: string
}

function targetOf(path: string): string {
  try {
    return readlinkSync(path)
  } catch {
    // Of a QEMU of our own: it is no link.
    return path
  }
}
