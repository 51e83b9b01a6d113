/** What a guest of the torture leaves on a host: processes that are too many while it lives, and anything once it has been removed. */
import { existsSync } from 'node:fs'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { tapName } from '../../src/qemu/nic.ts'
import { processesWith } from '../../test/support/processes.ts'
import type { TestHost } from '../../test/support/two-hosts.ts'

/** Of a guest that is whole each host has one QEMU. */
export function surplusOf(host: TestHost, name: string): string[] {
  const { ram } = guestFiles(host.stateDirectory, name)
  const pids = processesWith(ram)
  return pids.length === 1 ? [] : [`${host.name} has ${pids.length} QEMUs of it: ${pids.join()}`]
}

export function leftOf(host: TestHost, name: string): string[] {
  const { ram, accesses, directory } = guestFiles(host.stateDirectory, name)
  const tap = tapName(directory, 0)
  const places = [host.path(ram), host.path(accesses), directory]
  return [
    ...processesWith(ram).map((pid) => `process ${pid} has its memory on ${host.name}`),
    ...places.filter((path) => existsSync(path)).map((path) => `${path} on ${host.name}`),
    ...(host.framesOut().has(tap) ? [`${tap} on ${host.name}`] : []),
  ]
}
