/** `subpage completion`: scripts for shells, from the table of commands, and the names of guests that these ask for. */
import type { AgentClient } from '../../agent/client.ts'
import { defaultStateDirectory } from '../../agent/state-directory.ts'
import { setting } from '../../environment.ts'
import { SubpageError } from '../../errors.ts'
import { guestNames } from '../../qemu/guest-files.ts'
import { agentOf } from '../agent-of.ts'
import type { Command, Invocation } from '../command.ts'
import { variableFor, whereOptions } from '../completion/words.ts'

const shells = ['bash', 'zsh', 'fish']

export const completionCommand: Command = {
  name: 'completion',
  args: ['<shell>'],
  completes: [shells],
  summary: 'make a shell complete commands, options and names of guests',
  help: `Examples:
  source <(subpage completion bash)      # in ~/.bashrc
  source <(subpage completion zsh)       # in ~/.zshrc, after compinit
  subpage completion fish > ~/.config/fish/completions/subpage.fish

Names of guests are those of the agent that the line names with --state or --api, without either those of this user's.`,
  flags: [],
  async run(invocation) {
    const shell = String(invocation.args[0])
    if (shell === 'names') {
      // The scripts ask for it. Where there is no agent there is nothing to complete.
      const names = await namesOf(invocation).catch(() => [])
      return invocation.output.verbatim(names, names.join('\n'))
    }
    const script = await scriptOf(shell)
    invocation.output.verbatim({ shell, script }, script)
  },
}

async function scriptOf(shell: string): Promise<string> {
  const [{ commands }, { linesOf }] = await Promise.all([
    import('../commands.ts'),
    import('../completion/words.ts'),
  ])
  const lines = linesOf(commands)
  if (shell === 'bash') return (await import('../completion/bash.ts')).bashScript(lines)
  if (shell === 'zsh') return (await import('../completion/zsh.ts')).zshScript(lines)
  if (shell === 'fish') return (await import('../completion/fish.ts')).fishScript(lines)
  throw new SubpageError('BAD_ARGUMENT', `"${shell}" is not one of ${shells.join(', ')}`)
}

/** Of this machine they are read rather than asked for: a guest that hangs is no reason to wait. */
async function namesOf(invocation: Invocation): Promise<string[]> {
  const given = whereOptions.map((option) => setting(variableFor(option)))
  const [state, api, apiTokenFile, tlsCa] = given
  if (api === undefined) return guestNames(state ?? defaultStateDirectory())
  const flags = { api, ...(apiTokenFile && { apiTokenFile }), ...(tlsCa && { tlsCa }) }
  const agent: AgentClient = agentOf({ ...invocation, flags })
  return (await agent.status()).guests.map(({ name }) => name)
}
