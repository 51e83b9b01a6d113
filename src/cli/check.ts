/** The report of `subpage check` for people: a mark, what was found, what it is for, and how to get what is missing. */
import { styleText } from 'node:util'
import type { HostReport } from '../qemu/host-check.ts'
import { columnsOf, fill } from '../text-layout.ts'

const marks = {
  true: { mark: '✓', colour: 'green' },
  degraded: { mark: '!', colour: 'yellow' },
  false: { mark: '✗', colour: 'red' },
} as const

/** @param colours by default on a terminal, unless NO_COLOR says otherwise (no-color.org: set and not empty) */
export function formatReport(
  report: HostReport,
  colours = process.stdout.isTTY === true && !process.env.NO_COLOR,
  columns = columnsOf(process.stdout),
): string {
  const paint = (style: Parameters<typeof styleText>[0], text: string) =>
    colours ? styleText(style, text, { validateStream: false }) : text
  const width = Math.max(...report.items.map(({ name }) => name.length))
  const indent = ' '.repeat(width + 4)
  const lines = report.items.flatMap(({ name, ok, found, purpose, remedy }) => {
    const { mark, colour } = marks[`${ok}`]
    return [
      ...fill(`${paint(colour, mark)} ${paint('bold', name.padEnd(width))}  ${found}`, columns, indent),
      ...fill(`${indent}${purpose}`, columns, indent).map((line) => paint('dim', line)),
      ...(remedy === undefined
        ? []
        : fill(`${indent}${paint(colour, '→')} ${remedy}`, columns, `${indent}  `)),
    ]
  })
  return `${lines.join('\n')}\n\n${fill(closing(report), columns, '').join('\n')}\n`
}

function closing({ items, accel, usable }: HostReport): string {
  const names = (state: boolean | 'degraded') => items.flatMap(({ ok, name }) => (ok === state ? [name] : []))
  if (!usable) return `subpage does not work here yet: ${names(false).join(', ')} (✗) must be there.`
  const less = names('degraded')
  const how = accel === 'kvm' ? 'KVM' : 'TCG, QEMU translating their code'
  return `Ready: guests run with ${how}.${less.length > 0 ? ` With less (!): ${less.join(', ')}.` : ''}`
}
