/** Pieces of HTML and SVG. Text is always escaped; what is markup already says so by its type. */

declare const marked: unique symbol
export type Markup = string & { readonly [marked]: true }

/** For what this program itself wrote as markup. */
export const markup = (trusted: string) => trusted as Markup

export function escaped(text: string): Markup {
  return markup(
    text
      .replaceAll('&', '&amp;')
      .replaceAll('<', '&lt;')
      .replaceAll('>', '&gt;')
      .replaceAll('"', '&quot;')
      // What XML cannot hold, and what would turn text around.
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
      .replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g, '\ufffd'),
  )
}

type Attributes = Record<string, string | number | undefined>

/** An element: attributes are escaped, numbers get two decimals at most; children are text (escaped) or markup. */
export function element(
  name: string,
  attributes: Attributes,
  ...children: (Markup | readonly Markup[])[]
): Markup {
  const written = Object.entries(attributes)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => ` ${key}="${typeof value === 'number' ? short(value) : escaped(String(value))}"`)
    .join('')
  const inner = children.flat().join('')
  return markup(
    inner === '' && voidable.has(name) ? `<${name}${written}/>` : `<${name}${written}>${inner}</${name}>`,
  )
}

const voidable = new Set(['rect', 'line', 'path', 'circle', 'polyline', 'polygon', 'image', 'stop', 'br'])

/** A coordinate: a hundredth of a pixel is enough, and keeps pages small. */
export const short = (value: number) => String(Math.round(value * 100) / 100)
