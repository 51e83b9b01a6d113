/** The report for people: marks, remedies only where something is missing, colours only where they are wanted. */
import { describe, expect, test } from 'vitest'
import { formatReport } from '../../src/cli/check.ts'
import type { HostReport } from '../../src/qemu/host-check.ts'

const qemu = { name: 'QEMU', ok: true, found: '7.2.22', purpose: 'runs the guests' } as const
const kvm = {
  name: 'KVM',
  ok: 'degraded',
  found: 'there is no /dev/kvm',
  purpose: 'full speed',
  remedy: 'load kvm_intel',
} as const
const shm = { name: '/dev/shm', ok: false, found: '64 MiB', purpose: 'RAM', remedy: 'enlarge it' } as const

describe('formatReport', () => {
  test('a host that is ready, with less', () => {
    const report: HostReport = { items: [qemu, kvm], accel: 'tcg', usable: true }
    expect(formatReport(report, false)).toBe(`✓ QEMU  7.2.22
        runs the guests
! KVM   there is no /dev/kvm
        full speed
        → load kvm_intel

Ready: guests run with TCG, QEMU translating their code. With less (!): KVM.
`)
  })

  test('a host that is not', () => {
    const text = formatReport({ items: [qemu, shm], accel: 'kvm', usable: false }, false)
    expect(text).toContain('✗ /dev/shm  64 MiB')
    expect(text).toContain('does not work here yet: /dev/shm (✗) must be there.')
  })

  test('all there', () => {
    const text = formatReport({ items: [qemu], accel: 'kvm', usable: true }, false)
    expect(text.endsWith('Ready: guests run with KVM.\n')).toBe(true)
  })

  test('colours change nothing but the colour', () => {
    const report: HostReport = { items: [qemu, kvm, shm], accel: 'tcg', usable: false }
    const coloured = formatReport(report, true)
    const control = String.fromCharCode(27)
    expect(coloured).toContain(control)
    expect(coloured.replaceAll(new RegExp(`${control}\\[\\d+m`, 'g'), '')).toBe(formatReport(report, false))
  })
})
