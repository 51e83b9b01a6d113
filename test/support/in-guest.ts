/** Commands in a demo guest, through its serial console. */
import { expect } from 'vitest'
import { type Console, consoleLength, typeLine, untilConsole } from '../../src/qemu/demo-guest.ts'

/** What a command in the guest prints; it must end well. */
export async function inGuest(console: Console, command: string, limitMs = 20_000): Promise<string> {
  const from = await consoleLength(console)
  await typeLine(console, `run ${command}`)
  // What a command prints may end without a line of its own.
  const ended = (text: string) => /([\s\S]*)subpage-guest: exit (\d+)$/m.exec(text) ?? undefined
  const said = await untilConsole(console, from, ended, limitMs)
  expect(said[2], said[1]).toBe('0')
  return said[1]!.trim()
}
