/** What a guest leaves on a host of a test. */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { type GuestFiles, guestFiles } from '../../src/qemu/guest-files.ts'
import type { Hosts } from './hosts.ts'
import { processesWith } from './processes.ts'

/** @param hosts which are there when one of these is called */
export function traces(hosts: () => Hosts) {
  const stateOf = (host: string) => join(hosts().directory, host)
  const filesOf = (host: string, name: string): GuestFiles => guestFiles(stateOf(host), name)

  /**
   * Nothing of a guest is on a host: no file, no memory, no process that has the memory's name in its arguments. A supervisor may
   * still wait for a primary that was refused.
   */
  function expectNothingOf(host: string, name: string): void {
    const files = filesOf(host, name)
    const left = existsSync(files.directory) ? readdirSync(files.directory) : []
    expect(left.filter((leaf) => !leaf.startsWith('supervisor.'))).toEqual([])
    expect(existsSync(files.ram)).toBe(false)
    expect(processesWith(files.ram)).toEqual([])
  }

  return { stateOf, filesOf, expectNothingOf }
}
