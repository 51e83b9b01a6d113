/** The units of memory (design.md, Words). */

export const pageBytes = 4096
export const lineBytes = 64
export const linesPerPage = pageBytes / lineBytes
