/** docs/protocol.md, its tables of states: what stands between two marks is made from the code, the rest is written by hand. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from '../../src/memory/native.ts'
import { primaryChanges, primaryLabels, primaryTransitions } from '../../src/replication/primary-state.ts'
import { standbyChanges, standbyLabels, standbyTransitions } from '../../src/replication/standby-state.ts'
import type { Transitions } from '../../src/replication/state-machine.ts'

export const protocolPath = 'docs/protocol.md'

export function renderProtocol(): string {
  const text = readFileSync(join(packageRoot, protocolPath), 'utf8')
  const primary = [eventTable(primaryChanges), '', stateTable(primaryTransitions, primaryLabels)].join('\n')
  const standby = [eventTable(standbyChanges), '', stateTable(standbyTransitions, standbyLabels)].join('\n')
  return between(between(text, 'the states of a primary', primary), 'the states of a standby', standby)
}

function between(text: string, what: string, made: string): string {
  const [before, , after] = text.split(
    new RegExp(`(?<=<!-- ${what} -->\n)([^]*?)(?=<!-- end of ${what} -->)`),
  )
  if (after === undefined) throw new Error(`${protocolPath} has no marks for ${what}`)
  return `${before}\n${made}\n\n${after}`
}

function eventTable(meanings: Readonly<Record<string, string>>): string {
  const rows = Object.entries(meanings).map(([event, meaning]) => `| ${event} | ${meaning} |`)
  return ['| event | when |', '|---|---|', ...rows].join('\n')
}

function stateTable<S extends string>(
  transitions: Transitions<S, string>,
  labels: Readonly<Record<S, string | undefined>>,
): string {
  const rows = (Object.keys(transitions) as S[]).map((state) => {
    const changes = Object.entries(transitions[state]).map(([event, to]) =>
      to === state ? event : `${event} → **${to}**`,
    )
    return `| **${state}** | ${labels[state] ?? 'as before'} | ${changes.join('; ')} |`
  })
  return ['| state | shown as | events, and the state afterwards |', '|---|---|---|', ...rows].join('\n')
}
