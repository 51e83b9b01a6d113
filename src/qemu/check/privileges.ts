/** What this user may do, each found out by trying where trying changes nothing. */
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import { errorCode } from '../../errors.ts'
import { type HostItem, item } from './item.ts'
import { capability, hasCapability } from './proc.ts'

export function checkPrivileges(): HostItem[] {
  const status = readFileSync('/proc/self/status', 'utf8')
  const mayTrace = hasCapability(status, capability.sysPtrace)
  return [traceItem(mayTrace), faultItem(mayTrace), tapItem(hasCapability(status, capability.netAdmin))]
}

/** ptrace(2): a descriptor of another process is to be had only by those who may attach to it. */
function traceItem(mayTrace: boolean): HostItem {
  const name = 'looking into QEMU'
  const purpose =
    'reads the page tables of guests, also of those that another user or an earlier agent started'
  const who = process.getuid?.() === 0 ? 'root' : 'not root'
  if (mayTrace) return item(name, purpose, `${who}, with CAP_SYS_PTRACE`)
  const scope = readSetting('/proc/sys/kernel/yama/ptrace_scope')
  return item(
    name,
    purpose,
    `${who}, without CAP_SYS_PTRACE${scope ? `, ptrace_scope ${scope}` : ''}: own guests only`,
    {
      otherwise: 'degraded',
      remedy: 'run the agent as root, or give it AmbientCapabilities=CAP_SYS_PTRACE in its systemd unit',
    },
  )
}

/** userfaultfd(2): three ways to a descriptor that serves the faults of system calls too. */
function faultItem(mayTrace: boolean): HostItem {
  const name = 'serving page faults'
  const purpose = "takes a guest's cold pages away and brings them back on demand (density)"
  if (opens('/dev/userfaultfd') === undefined) return item(name, purpose, '/dev/userfaultfd opens')
  if (mayTrace) return item(name, purpose, 'userfaultfd, through CAP_SYS_PTRACE')
  if (readSetting('/proc/sys/vm/unprivileged_userfaultfd') === '1')
    return item(name, purpose, 'userfaultfd, vm.unprivileged_userfaultfd is 1')
  return item(name, purpose, 'only faults in user mode, which is enough to protect a guest', {
    otherwise: 'degraded',
    remedy: 'give this user access to /dev/userfaultfd, or sysctl vm.unprivileged_userfaultfd=1',
  })
}

function tapItem(netAdmin: boolean): HostItem {
  const name = 'tap devices'
  const purpose = "puts guests on a bridge, where their clients' connections survive a failover"
  const failed = opens('/dev/net/tun')
  if (failed === undefined && netAdmin) return item(name, purpose, '/dev/net/tun opens, with CAP_NET_ADMIN')
  const found =
    failed === undefined
      ? '/dev/net/tun opens, without CAP_NET_ADMIN: only taps that were made for this user'
      : failed === 'ENOENT'
        ? 'there is no /dev/net/tun'
        : `/dev/net/tun does not open: ${failed}`
  const remedy =
    failed === undefined || failed === 'EACCES'
      ? 'run the agent as root, or have root make one: ip tuntap add NAME mode tap user USER'
      : 'modprobe tun (in a container: pass the device /dev/net/tun)'
  return item(name, purpose, found, { otherwise: 'degraded', remedy })
}

/** The errno name when it does not open for reading and writing. */
function opens(device: string): string | undefined {
  try {
    closeSync(openSync(device, 'r+'))
    return undefined
  } catch (error) {
    return errorCode(error) ?? String(error)
  }
}

/** Undefined where the kernel has no such setting. */
function readSetting(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : undefined
}
