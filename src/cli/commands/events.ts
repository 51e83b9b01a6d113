/** `subpage events`: what happened on this host. */
import type { HostEvent } from '../../agent/event-log.ts'
import { agentFlags, agentOf } from '../agent-of.ts'
import type { Command } from '../command.ts'
import { guestName } from '../guest-name.ts'

export const eventsCommand: Command = {
  name: 'events',
  args: ['[name]'],
  completes: ['guest'],
  summary: 'show what happened on this host, or to one guest',
  help: 'With --follow it goes on until interrupted. The events of a guest that is gone are kept for a while.',
  flags: [...agentFlags, { form: '-f, --follow', summary: 'wait for new events' }],
  async run(invocation) {
    const { args, flags, output } = invocation
    const agent = agentOf(invocation)
    const name = args[0] === undefined ? undefined : guestName(args[0])
    const print = (event: HostEvent) =>
      output.data(event, () => `${event.time}  ${event.guest || '-'}  ${event.kind}  ${event.text}`)
    const wanted = (event: HostEvent) => name === undefined || event.guest === name
    if (flags.follow) {
      for await (const event of agent.events()) if (wanted(event)) print(event)
      return
    }
    const events = (await agent.recentEvents()).filter(wanted)
    // A name that nothing ever happened to is a mistake; one that is here and quiet is not.
    if (name !== undefined && events.length === 0) await agent.guest(name)
    for (const event of events) print(event)
  },
}
