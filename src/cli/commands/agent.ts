/** `subpage agent`: runs the daemon of this host in the foreground. */
import type { Agent } from '../../agent/agent.ts'
import { serve } from '../../agent/serve.ts'
import { stateOf } from '../agent-of.ts'
import { type Command, text } from '../command.ts'

export const agentCommand: Command = {
  name: 'agent',
  args: [],
  summary: 'run the agent of this host',
  help: 'Example:\n  subpage agent --listen 192.0.2.10:7475\n\nGuests outlive the agent; a new one on the same state directory finds them again.',
  flags: [
    { form: '--state <dir>', summary: 'state directory (default: /run/subpage for root)' },
    { form: '--listen <address>', summary: 'where other hosts reach this one', default: '127.0.0.1:7475' },
    { form: '--ephemeral', summary: 'remove all guests and end when standard input ends (for tests)' },
    { form: '--host <name>', summary: 'name of this host in status and events (default: its host name)' },
  ],
  async run(invocation) {
    const { flags, output } = invocation
    const agent = await serve({
      stateDirectory: stateOf(invocation),
      listen: text(invocation, 'listen'),
      ...(flags.host === undefined ? {} : { hostName: String(flags.host) }),
    })
    agent.events.on('event', (event) =>
      output.data(event, () => `${event.time} ${event.guest || '-'} ${event.kind}: ${event.text}`),
    )
    if (flags.ephemeral) endWithInput(agent)
    output.note(
      `subpage agent ${agent.hostName}: ready (state ${agent.stateDirectory}, replication ${text(invocation, 'listen')})`,
    )
  },
}

/** Whoever started us holds the other end of our standard input: it closes when they end, however they end. */
function endWithInput(agent: Agent): void {
  process.stdin.resume()
  process.stdin.once('end', async () => {
    for (const name of [...agent.guests.keys()]) await agent.remove(name).catch(() => undefined)
    process.kill(process.pid, 'SIGTERM')
  })
}
