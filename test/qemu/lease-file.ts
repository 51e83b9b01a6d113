/** A lease for each test, with programs that have the shim; and its file as another program sees it: its words. */
import { randomBytes } from 'node:crypto'
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest'
import { addon } from '../../src/memory/native.ts'
import { PauseLease } from '../../src/qemu/pause-lease.ts'
import { Victims } from '../tracking/victim.ts'

interface LeaseInEach {
  victims: Victims
  path: string
  lease: PauseLease
  /** The state. */
  word(): bigint
}

/** What is in it is of the test that runs. */
export function leaseInEach(): LeaseInEach {
  const directory = mkdtempSync(join(tmpdir(), 'subpage-lease-'))
  const its = { word: () => wordIn(its.path) } as LeaseInEach
  beforeAll(() => {
    its.victims = new Victims()
  })
  beforeEach(() => {
    its.path = join(directory, randomBytes(4).toString('hex'))
    PauseLease.create(its.path)
    its.lease = PauseLease.open(its.path)
  })
  afterEach(async () => {
    its.lease.close()
    await its.victims.clear()
  })
  afterAll(async () => {
    await its.victims.close()
    rmSync(directory, { recursive: true })
  })
  return its
}

function wordIn(path: string): bigint {
  const handle = addon.leaseOpen(path)
  const value = addon.leaseWord(handle)
  addon.leaseClose(handle)
  return value
}

/** In place: a guard that looks at a file which is cut short for a moment dies of SIGBUS. */
export function writeAt(path: string, at: number, bytes: Uint8Array): void {
  const file = openSync(path, 'r+')
  writeSync(file, bytes, 0, bytes.length, at)
  closeSync(file)
}

export function writeWord(path: string, value: bigint, at = 0): void {
  const word = Buffer.alloc(8)
  word.writeBigUInt64LE(value)
  writeAt(path, at, word)
}
