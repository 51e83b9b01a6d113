/**
 * The shim as seen from outside: the environment that makes a program load it, and what it reports. The other side is
 * native/shim/environment.h; test/tracking/shim.test.ts holds that both agree.
 */
import { existsSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { errorCode } from '../errors.ts'
import { packageRoot } from '../memory/native.ts'

export const shimPath = join(packageRoot, 'build/native/shim.so')

/**
 * LD_PRELOAD (ld.so(8)) separates paths at colons and spaces, and replaces words after $. A library whose path it cannot name is
 * named by a descriptor that the program inherits.
 * @returns the descriptor, which the caller closes; undefined when the path will do, or leads nowhere
 */
export function openUnnameable(path = shimPath): number | undefined {
  return /[\s:$]/.test(path) && existsSync(path) ? openSync(path, 'r') : undefined
}

export interface ShimFiles {
  /** Another name of the library. */
  library?: string
  ram: string
  status: string
  /** With both there is a guard; without it a pause depends on the agent. The fence needs the lease alone. */
  lease?: string
  guardQmp?: string
  /** Where accesses are forgotten (forget.ts); without it they cannot be. */
  forget?: string
  /** Memory that QEMU allocates beside the RAM goes into the RAM file too. */
  auxRam?: boolean
  /** Bytes of each memory backend that the RAM is made of, when that is not the file itself. */
  backends?: readonly number[]
  /** Maps in which the chunks of disks that are written are marked (disk/chunk-map.ts). */
  diskMaps?: readonly string[]
}

export function shimEnvironment(files: ShimFiles): Record<string, string> {
  const {
    library = shimPath,
    ram,
    status,
    lease,
    guardQmp,
    forget,
    auxRam,
    backends = [],
    diskMaps = [],
  } = files
  return {
    LD_PRELOAD: [library, process.env.LD_PRELOAD].filter(Boolean).join(':'),
    SUBPAGE_RAM: ram,
    SUBPAGE_SHIM_STATUS: status,
    ...(lease === undefined ? {} : { SUBPAGE_LEASE: lease }),
    ...(guardQmp === undefined ? {} : { SUBPAGE_GUARD_QMP: guardQmp }),
    ...(forget === undefined ? {} : { SUBPAGE_FORGET: forget }),
    ...(auxRam ? { SUBPAGE_AUX_RAM: 'on' } : {}),
    ...(backends.length > 0 ? { SUBPAGE_RAM_BACKENDS: backends.join(',') } : {}),
    ...(diskMaps.length > 0 ? { SUBPAGE_DISK_MAPS: diskMaps.join('\n') } : {}),
  }
}

export interface ShimStatus {
  format: 1
  pid: number
  /** `waiting`: loaded, but the program has not mapped the RAM file as shared memory. */
  tracking: 'waiting' | 'ok' | 'failed'
  /** `full` can serve page faults of system calls too, `user` only tracks. */
  kind: '' | 'full' | 'user'
  /** Descriptor of the userfaultfd inside the program, -1 without one. */
  uffd: number
  /** Of the latest mapping. */
  address: string
  bytes: number
  mappings: number
  guard: 'off' | 'on' | 'failed'
  /** `on`: what QEMU sends to a tap passes the fence (native/shim/fence.h). */
  fence: 'off' | 'on' | 'failed'
  forget: 'off' | 'on' | 'failed'
  /** Memory backends that are in the file; an older shim says nothing of them. */
  backends?: number
  /** Memory backends that were in it, and that QEMU has given up while it ran: what has their place in the guest is elsewhere. */
  unplugged?: number
  /** Bytes of each block behind the RAM in its file, in order. */
  aux: number[]
  failedStep: string
  errno: number
  reason: string
}

/** Undefined when there is no report: the shim was not loaded. It is replaced by rename, so always whole. */
export function readShimStatus(path: string): ShimStatus | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as ShimStatus
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    throw error
  }
}

/**
 * What follows when a QEMU that has mapped its RAM runs without the shim; undefined when it was loaded. A shell that starts QEMU
 * may have loaded it, and reported, in QEMU's place. For people.
 */
export function shimMissing(statusPath: string): string | undefined {
  return (readShimStatus(statusPath)?.tracking ?? 'waiting') !== 'waiting'
    ? undefined
    : `${withoutShim}: all its memory is compared at each checkpoint, so pauses are longer; nothing resumes it if its agent hangs in a pause; and a host that was stopped while its guest was taken over may let out packets once more (subpage check says why)`
}

const withoutShim = `QEMU has not loaded ${shimPath}`

/** One clause for people. */
export function describeShim({ tracking, failedStep, reason }: ShimStatus): string {
  if (tracking === 'ok') return 'the shim registered it'
  if (tracking === 'waiting') return 'the shim was loaded but saw no shared mapping of the RAM file'
  return `the shim failed at ${failedStep}: ${reason}`
}
