/**
 * Takes UEFI firmware out of the options after `--`, so that it is protected as that of `--firmware` is: the two -drive if=pflash that scripts
 * and virt-install's manuals give, and what goes with them.
 */
import { driveIsWritable } from './disk-policy.ts'
import { type FirmwareKind, type FirmwareRequest, firmwareOf } from './firmware.ts'
import { type GivenOption, refuse } from './option-policy.ts'
import { parseOption } from './option-syntax.ts'

interface Flash {
  option: GivenOption
  name: string
  file: string
  writable: boolean
}

/** That only the firmware may write its variables: said again for firmware that needs it, and of no use to others. */
const guarded = /^(driver=)?cfi\.pflash01[.,](property=)?secure(,value)?=on$/

/**
 * @param kindOf which firmware a file is; undefined: none that this host knows
 * @throws SubpageError GUEST_UNPROTECTABLE, naming the option and the reason
 */
export function takeFirmware(
  given: GivenOption[],
  kindOf: (code: string) => FirmwareKind | undefined = firmwareOf,
): { options: GivenOption[]; firmware?: FirmwareRequest } {
  const flash = given.flatMap((option) => readFlash(option) ?? [])
  const [first] = flash
  if (!first) return { options: given }
  const code = flash.find(({ writable }) => !writable)
  const nvram = flash.find(({ writable }) => writable)
  if (!code || !nvram || flash.length > 2)
    return refuse(
      first.name,
      'UEFI firmware is two drives with if=pflash: its code with readonly=on, and its variables; or give --firmware uefi',
    )
  const kind = kindOf(code.file)
  if (kind === undefined)
    return refuse(
      code.name,
      `${code.file} is no firmware of the packages of this host, which the other host would have to have as well; give --firmware uefi`,
    )
  const options = given.filter(
    (option) =>
      option !== code.option &&
      option !== nvram.option &&
      !(option.flag === '-global' && guarded.test(option.value ?? '')),
  )
  return { options, firmware: { kind, nvram: nvram.file } }
}

const properties: Record<string, RegExp> = {
  if: /^pflash$/,
  format: /^raw$/,
  unit: /^[01]$/,
  index: /^[01]$/,
  readonly: /^(on|off)$/,
  'read-only': /^(on|off)$/,
  id: /^[A-Za-z][\w.-]{0,62}$/,
  file: /^\//,
}

function readFlash(option: GivenOption): Flash | undefined {
  const parts = option.flag === '-drive' ? parseOption(option.value ?? '') : []
  if (!parts.some(({ key, value }) => key === 'if' && value === 'pflash')) return undefined
  const name = `${option.flag} ${option.value}`
  for (const { key = 'file', value } of parts) {
    const form = Object.hasOwn(properties, key) ? properties[key] : undefined
    if (!form?.test(value)) refuse(name, `${key}=${value} is not possible for firmware`)
  }
  const file = parts.find(({ key = 'file' }) => key === 'file')?.value
  if (file === undefined) return refuse(name, 'it names no file')
  return { option, name, file, writable: driveIsWritable(parts) }
}
