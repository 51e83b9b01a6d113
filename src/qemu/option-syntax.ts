/**
 * QEMU's syntax of option values, `word,key=value,key=value`, in which a comma in a value is doubled
 * (util/qemu-option.c). The first word may stand without its key.
 */

export interface OptionPart {
  /** Undefined for the first word when it stands without a key. */
  key: string | undefined
  value: string
}

/** A later word without `=` is a switch, and means `on`. */
export function parseOption(text: string): OptionPart[] {
  const parts: OptionPart[] = []
  for (const part of splitAtCommas(text)) {
    const at = part.indexOf('=')
    if (at >= 0) parts.push({ key: part.slice(0, at), value: part.slice(at + 1) })
    else if (parts.length === 0) parts.push({ key: undefined, value: part })
    else parts.push({ key: part, value: 'on' })
  }
  return parts
}

/** Splits at single commas; a doubled one is a comma of the value. */
export function splitAtCommas(text: string): string[] {
  const parts = ['']
  for (let i = 0; i < text.length; i++) {
    const character = text[i] ?? ''
    if (character !== ',') parts[parts.length - 1] += character
    else if (text[i + 1] === ',') {
      parts[parts.length - 1] += ','
      i++
    } else parts.push('')
  }
  return parts
}

export function doubleCommas(value: string): string {
  return value.replaceAll(',', ',,')
}
