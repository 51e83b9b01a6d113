/** `subpage dashboard`: opens the dashboard of a host, or says where it is. */
import { spawn } from 'node:child_process'
import { setting } from '../../environment.ts'
import { agentFlags, agentOf } from '../agent-of.ts'
import type { Command } from '../command.ts'

export const dashboardCommand: Command = {
  name: 'dashboard',
  args: [],
  summary: 'see the guests of this host in a browser',
  help: `Prints an address that opens the dashboard once, within two minutes, and opens it where there is a screen. An agent without
--api-listen serves it on 127.0.0.1 alone; from elsewhere, forward that port (ssh -L), or give the agent --api-listen.`,
  flags: [
    ...agentFlags.slice(0, 1),
    { form: '--read-only', summary: 'the page shows everything, and changes nothing' },
    { form: '--print', summary: 'only print the address' },
  ],
  async run(invocation) {
    const { flags, output } = invocation
    const found = await agentOf(invocation).dashboard({ readOnly: flags.readOnly === true })
    output.data(found, () => found.url)
    if (!output.json && flags.print !== true && hasScreen()) open(found.url)
  },
}

const hasScreen = () => ['DISPLAY', 'WAYLAND_DISPLAY'].some((name) => setting(name) !== undefined)

function open(url: string): void {
  const child = spawn('xdg-open', [url], { stdio: 'ignore', detached: true })
  // Without xdg-open the address is there to be copied.
  child.on('error', () => undefined)
  child.unref()
}
