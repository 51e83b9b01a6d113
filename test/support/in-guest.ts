/** Commands in a demo guest, through its serial console. */
import { expect } from 'vitest'
import { type Console, consoleLength, typeLine, untilConsole } from '../../src/qemu/demo-guest.ts'

/** What a command in the guest prints; it must end well. */
export async function inGuest(console: Console, command: string, limitMs = 20_000): Promise<string> {
  const from = await consoleLength(console)
  await typeLine(console, `run ${command}`)
  // What a command prints may end without a line of its own.
  const ended = (text: string) => /([\s\S]*)subpage-guest: exit (\d+)\r?\n/.exec(text) ?? undefined
  const said = await untilConsole(console, from, ended, limitMs)
  // Other programs of the guest may have said a lot meanwhile.
  expect(said[2], `${command}: ${said[1]!.slice(-2000)}`).toBe('0')
  return said[1]!.trim()
}
