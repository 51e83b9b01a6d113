import { createHash } from 'node:crypto'

/** Under which other decisions about a guest are made: a UUID that no guest has by chance, of the form for private use (RFC 9562, version 8). */
export function derivedId(guest: string, what: 'returned' | 'dismissed'): string {
  const hex = createHash('sha256').update(`${guest.toLowerCase()} ${what}`).digest('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}
