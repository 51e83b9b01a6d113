/** docs/limits.md, from the table in src/limits.ts. */
import { type Limit, limits } from '../../src/limits.ts'

export function renderLimits(): string {
  return `<!-- Generated from src/limits.ts by \`npm run generate\`: change it there. -->

# Limits

How much subpage takes of what comes from outside: from another host, from QEMU, from files and from clients. A limit is checked before
memory is taken for what is announced.

| Of | At most | Beyond | Held by |
|---|---:|---|---|
${Object.values(limits).map(row).join('\n')}
`
}

const row = ({ of, value, unit, beyond, test }: Limit): string =>
  `| ${of} | ${amount(value, unit)} | ${beyond} | \`${test}\` |`

function amount(value: number, unit: Limit['unit']): string {
  if (unit === 'bytes' && value % 2 ** 20 === 0) return `${value / 2 ** 20} MiB`
  if (unit === 'bytes' && value % 2 ** 10 === 0) return `${value / 2 ** 10} KiB`
  return `${value.toLocaleString('en')} ${unit}`
}
