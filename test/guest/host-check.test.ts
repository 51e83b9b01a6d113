/** The probes of `subpage check` on this host: they agree with each other, are quick the second time, leave nothing behind. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { formatReport } from '../../src/cli/check.ts'
import { packageRoot } from '../../src/memory/native.ts'
import { probeAccel } from '../../src/qemu/accel.ts'
import { bootKernel } from '../../src/qemu/check/kvm.ts'
import { probeQemu } from '../../src/qemu/check/probe-qemu.ts'
import { checkHost } from '../../src/qemu/host-check.ts'
import { cellsOf } from '../../src/text-layout.ts'

const kernel = join(packageRoot, 'build/guest/vmlinuz')
const minute = 60_000

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'subpage-host-check-'))
  vi.stubEnv('XDG_RUNTIME_DIR', folder)
})
afterAll(() => {
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true })
})
afterEach(() => expect(children()).toEqual([]))

/** Command names of the processes that this one started and that still exist. */
function children(): string[] {
  return readdirSync('/proc').flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return []
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
      const command = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'))
      const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
      return parent === process.pid && /qemu|setpriv/.test(command) ? [command] : []
    } catch {
      return [] // It ended while we looked.
    }
  })
}

test('this host is usable, and every shortcoming says what to do', async () => {
  const report = await checkHost()
  expect(report.items.filter(({ ok }) => ok === false)).toEqual([])
  expect(report.usable).toBe(true)
  for (const { name, ok, found, purpose, remedy } of report.items) {
    expect(found, name).not.toBe('')
    expect(purpose, name).not.toBe('')
    expect(remedy === undefined, name).toBe(ok === true)
  }
  expect(report.items.find(({ name }) => name === 'KVM')?.ok).toBe(report.accel === 'kvm' ? true : 'degraded')
  expect(await probeAccel()).toBe(report.accel)
  const lines = formatReport(report, true, 80).split('\n')
  expect(lines.filter((line) => cellsOf(line) > 80 && line.trim().includes(' '))).toEqual([])
  expect(await checkHost()).toMatchObject({ accel: report.accel, usable: true })
})

test('the proof of KVM passes where a kernel boots', async () => {
  expect(await bootKernel('tcg', kernel, minute)).toEqual({ works: true, found: 'boots a Linux kernel' })
})

test('and fails where it does not, with what was seen', async () => {
  const verdict = await bootKernel('tcg', join(packageRoot, 'package.json'), minute)
  expect(verdict.works).toBe(false)
  expect(verdict.found).toMatch(/QEMU ended before a Linux kernel had booted; last words: .*\S/)
})

test('a QEMU that does not end is killed when its time is over', async () => {
  const args = ['-M', 'none', '-nodefaults', '-display', 'none', '-qmp', 'stdio']
  const outcome = await probeQemu(args, { timeMsMax: 500 })
  expect(outcome.how).toBe('timeout')
})
