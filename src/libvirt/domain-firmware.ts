/**
 * UEFI firmware in a domain's description. Libvirt chooses a build by what is asked for, and the hosts may have them at other paths; so
 * the description that both hosts have says nothing of it: each host puts in its build of the same kind, and its own file of variables.
 */
import type { Document, Element } from '@xmldom/xmldom'
import { SubpageError } from '../errors.ts'
import { type Firmware, firmwareOf } from '../qemu/firmware.ts'
import { append, attribute, childrenOf, find, insertAfter, remove, rootOf, textAt } from './domain-xml.ts'

/** Why the firmware of a domain cannot be taken along; undefined when it can, or is SeaBIOS. */
export function firmwareRefusal(root: Element): string | undefined {
  const loader = find(root, 'os/loader')
  const nvram = find(root, 'os/nvram')
  if (attribute(loader, 'stateless') === 'yes')
    return 'stateless=yes: it forgets its variables at each start; leave it out'
  if (/^(block|network)$/.test(attribute(nvram, 'type') ?? ''))
    return 'its variables are not in a file of this host'
  if (/^(?!raw$)/.test(attribute(nvram, 'format') ?? 'raw')) return 'its variables are in no raw file'
  if (attribute(loader, 'type') === 'pflash' && attribute(loader, 'readonly') === 'no')
    return 'its code and its variables are one file; take <os firmware="efi">'
  return undefined
}

/**
 * @param live the description of the domain that runs: in others libvirt may not have chosen yet
 * @returns undefined for SeaBIOS
 * @throws SubpageError GUEST_UNPROTECTABLE for a build that no package of this host has
 */
export function firmwareOfDomain(live: Document): Firmware | undefined {
  const root = rootOf(live)
  if (attribute(find(root, 'os/loader'), 'type') !== 'pflash') return undefined
  const [code, nvram] = [textAt(root, 'os/loader'), textAt(root, 'os/nvram')]
  const kind = firmwareOf(code)
  if (kind === undefined || nvram === '') {
    const { part, reason } = unknownFirmware(code)
    throw new SubpageError(
      'GUEST_UNPROTECTABLE',
      `cannot protect the domain ${textAt(root, 'name')}: ${part}: ${reason}`,
    )
  }
  return { kind, code, nvram }
}

/** @param code that is of no package of this host */
export const unknownFirmware = (code: string) => ({
  part: 'os loader',
  reason: `${code} is neither the uefi nor the secure-boot firmware that packages of this host have, which the other host would have to have as well`,
})

/** Takes out what is said of UEFI. */
export function withoutFirmware(document: Document): Document {
  const os = find(rootOf(document), 'os')
  if (!os || !hasUefi(os)) return document
  os.removeAttribute('firmware')
  for (const name of ['firmware', 'loader', 'nvram']) for (const found of childrenOf(os, name)) remove(found)
  return document
}

const hasUefi = (os: Element) =>
  attribute(os, 'firmware') === 'efi' || attribute(find(os, 'loader'), 'type') === 'pflash'

/** Puts in what a host has; what there was goes. */
export function withFirmware(document: Document, firmware: Firmware | undefined): Document {
  if (!firmware) return document
  const root = rootOf(withoutFirmware(document))
  const secure = firmware.kind === 'secure-boot'
  const type = find(root, 'os/type')
  if (!type) return document
  const loader = insertAfter(type, 'loader', {
    ...{ readonly: 'yes', secure: secure ? 'yes' : 'no', type: 'pflash' },
  })
  loader.textContent = firmware.code
  insertAfter(loader, 'nvram', {}).textContent = firmware.nvram
  // Libvirt adds it where it chooses the build.
  if (secure && !find(root, 'features/smm'))
    append(find(root, 'features') ?? insertAfter(find(root, 'os')!, 'features', {}), 'smm', { state: 'on' })
  return document
}
