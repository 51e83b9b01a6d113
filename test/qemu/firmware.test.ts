/** Which firmware a host has, what is asked for, and what of it stands among the options after `--`. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
import {
  assertFits,
  findFirmware,
  firmwareOf,
  firmwareOfMachine,
  firmwareOptions,
  parseFirmware,
} from '../../src/qemu/firmware.ts'
import { guestFiles } from '../../src/qemu/guest-files.ts'
import { firmwareFor, firmwareOfCopy, makeNvram } from '../../src/qemu/nvram.ts'
import { takeFirmware } from '../../src/qemu/option-firmware.ts'
import { splitOptions } from '../../src/qemu/option-policy.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-firmware-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const refused = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) })

describe('the descriptors of a host', () => {
  const [administrators, packages] = ['etc', 'usr'].map((leaf) => join(directory, leaf)) as [string, string]
  for (const path of [administrators, packages]) mkdirSync(path)
  const file = (name: string) => {
    const path = join(directory, name)
    writeFileSync(path, name)
    return path
  }
  const describeBuild = (into: string, leaf: string, features: string[], form: object = {}, code = leaf) => {
    const raw = (name: string) => ({ filename: file(name), format: 'raw' })
    const mapping = {
      device: 'flash',
      executable: raw(`${code}.code`),
      'nvram-template': raw(`${code}.vars`),
    }
    const targets = [{ architecture: 'x86_64', machines: ['pc-q35-*'] }]
    writeFileSync(
      join(into, `${leaf}.json`),
      JSON.stringify({ 'interface-types': ['uefi'], mapping, targets, features, ...form }),
    )
  }
  describeBuild(packages, '10-arm', [], { targets: [{ architecture: 'aarch64', machines: [] }] })
  describeBuild(packages, '20-memory', [], { mapping: { device: 'memory', filename: '/x' } })
  describeBuild(packages, '30-enrolled', ['secure-boot', 'enrolled-keys', 'requires-smm'])
  describeBuild(packages, '40-keyless', ['secure-boot', 'requires-smm'])
  describeBuild(packages, '50-plain', [])
  writeFileSync(join(packages, '05-broken.json'), '{')

  test('name the first that fits', () => {
    const found = (kind: 'uefi' | 'secure-boot') => findFirmware(kind, [administrators, packages])
    expect(found('uefi')).toEqual({
      code: join(directory, '50-plain.code'),
      template: join(directory, '50-plain.vars'),
    })
    expect(found('secure-boot').code).toBe(join(directory, '30-enrolled.code'))
  })

  test("can be replaced by the administrator's, and taken out of use", () => {
    describeBuild(administrators, '50-plain', [], {}, 'own')
    expect(findFirmware('uefi', [administrators, packages]).code).toBe(join(directory, 'own.code'))
    writeFileSync(join(administrators, '50-plain.json'), '')
    expect(() => findFirmware('uefi', [administrators, packages])).toThrow(
      refused('FIRMWARE_MISSING', /no uefi firmware: install the package ovmf/),
    )
    expect(findFirmware('uefi', [packages]).code).toBe(join(directory, '50-plain.code'))
  })

  test('tell what a file is, by whatever name', () => {
    symlinkSync(join(directory, '30-enrolled.code'), join(directory, 'link'))
    expect(firmwareOf(join(directory, 'link'), [packages])).toBe('secure-boot')
    expect(firmwareOf(join(directory, '50-plain.code'), [packages])).toBe('uefi')
    expect(firmwareOf(join(directory, '50-plain.vars'), [packages])).toBeUndefined()
    expect(firmwareOf('/nowhere', [packages])).toBeUndefined()
  })
})

describe('what run is asked for', () => {
  test('is a kind, and perhaps a file', () => {
    expect(parseFirmware('uefi')).toEqual({ kind: 'uefi' })
    expect(parseFirmware('secure-boot,nvram=/v/a,,b')).toEqual({ kind: 'secure-boot', nvram: '/v/a,b' })
    expect(parseFirmware('uefi,nvram=vars.fd').nvram).toBe(join(process.cwd(), 'vars.fd'))
  })

  test.each(['', 'bios', 'uefi,vars=/x', 'uefi,nvram=', 'uefi,nvram=/x,nvram=/y'])('%j is none', (given) => {
    expect(() => parseFirmware(given)).toThrow(refused('BAD_ARGUMENT', /uefi or secure-boot/))
  })

  test.each<['uefi' | 'secure-boot', string, string[], RegExp | undefined]>([
    ['uefi', 'q35', [], undefined],
    ['uefi', 'pc-i440fx-7.2', [], undefined],
    ['secure-boot', 'pc-q35-7.2,hpet=off', [], undefined],
    ['uefi', 'microvm', [], /no flash/],
    ['secure-boot', 'pc', [], /q35/],
    ['secure-boot', 'q35,smm=off', [], /smm=off/],
    ['uefi', 'q35', ['-bios', 'x'], /give one of them/],
  ])('%s on %s %s', (kind, type, options, reason) => {
    const assert = () => assertFits(kind, type, options)
    if (reason) expect(assert).toThrow(refused('GUEST_UNPROTECTABLE', reason))
    else assert()
  })
})

describe('the variables', () => {
  const files = guestFiles(join(directory, 'state'), 'web')
  const owner = { id: '6f9619ff-8b86-4d01-b42d-00cf4fc964ff', name: 'web' }
  const { template, code } = findFirmware('uefi')

  test('have a file of the host, a copy of the template, which stays as it is', () => {
    const firmware = firmwareFor({ kind: 'uefi' }, files, owner)
    expect(firmware).toEqual({
      kind: 'uefi',
      code,
      nvram: join(files.disks, 'web.6f9619ff/nvram.fd'),
      made: true,
    })
    expect(makeNvram(firmware)).toBe(true)
    expect(readFileSync(firmware.nvram).equals(readFileSync(template))).toBe(true)
    expect(statSync(firmware.nvram).mode & 0o777).toBe(0o600)
    writeFileSync(firmware.nvram, 'written')
    expect(makeNvram(firmware)).toBe(false)
    expect(readFileSync(firmware.nvram, 'utf8')).toBe('written')
    expect(firmwareOfCopy('uefi', files, owner)).toEqual(firmware)
  })

  test('can be those of a file that is there', () => {
    const nvram = join(directory, 'vars.fd')
    writeFileSync(nvram, readFileSync(template))
    const firmware = firmwareFor({ kind: 'uefi', nvram }, files, owner)
    expect(firmware).toEqual({ kind: 'uefi', code, nvram })
    expect(makeNvram(firmware)).toBe(false)
    for (const [path, reason] of [
      ['vars.fd', /whole path/],
      [join(directory, 'none.fd'), /does not exist/],
      [directory, /must be a file of 540672 bytes/],
    ] as const)
      expect(() => firmwareFor({ kind: 'uefi', nvram: path }, files, owner)).toThrow(
        refused('DISK_UNUSABLE', reason),
      )
  })

  test('are written by the firmware alone where it is to be secure', () => {
    const firmware = { kind: 'secure-boot' as const, code: '/c', nvram: '/a,b' }
    expect(firmwareOfMachine(firmware)).toBe(',pflash0=subpage-firmware,pflash1=subpage-nvram,smm=on')
    expect(firmwareOptions(firmware)).toEqual([
      '-blockdev',
      'driver=raw,node-name=subpage-firmware,read-only=on,file.driver=file,file.filename=/c',
      '-blockdev',
      'driver=raw,node-name=subpage-nvram,read-only=off,file.driver=file,file.filename=/a,,b',
      '-global',
      'driver=cfi.pflash01,property=secure,value=on',
    ])
    expect([firmwareOfMachine(undefined), firmwareOptions(undefined)]).toEqual(['', []])
  })
})

describe('firmware among the options', () => {
  const take = (...options: string[]) => {
    const taken = takeFirmware(splitOptions(options), (code) =>
      code === '/code.fd' ? 'secure-boot' : undefined,
    )
    return { ...taken, options: taken.options.flatMap(({ flag, value }) => [flag, value]) }
  }
  const code = ['-drive', 'if=pflash,format=raw,unit=0,readonly=on,file=/code.fd']
  const vars = ['-drive', 'if=pflash,format=raw,unit=1,file=/vars.fd']

  test('is taken out with what goes with it, and nothing else', () => {
    const rest = ['-smp', '2', '-drive', 'file=/d,if=virtio']
    expect(
      take(...code, ...rest, ...vars, '-global', 'driver=cfi.pflash01,property=secure,value=on'),
    ).toEqual({
      options: rest,
      firmware: { kind: 'secure-boot', nvram: '/vars.fd' },
    })
    expect(take(...rest)).toEqual({ options: rest })
  })

  test.each<[string, string[], RegExp]>([
    ['code alone', code, /two drives/],
    ['variables alone', vars, /two drives/],
    ['a third chip', [...code, ...vars, ...vars], /two drives/],
    [
      'code of nobody',
      [...vars, '-drive', 'if=pflash,readonly=on,file=/mine.fd'],
      /no firmware of the packages/,
    ],
    [
      'a snapshot of the variables',
      [...code, '-drive', 'if=pflash,file=/v,snapshot=on'],
      /snapshot=on is not/,
    ],
    ['no file', [...code, '-drive', 'if=pflash,format=raw'], /names no file/],
    ['no whole path', [...code, '-drive', 'if=pflash,file=v.fd'], /file=v.fd is not/],
  ])('%s is refused', (_, options, reason) => {
    expect(() => take(...options)).toThrow(SubpageError)
    expect(() => take(...options)).toThrow(refused('GUEST_UNPROTECTABLE', reason))
  })
})
