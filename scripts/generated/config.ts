/** packaging/agent.toml: every option that can stand in the configuration file of an agent, commented out. */

import { isSwitch } from '../../src/cli/command.ts'
import { agentCommand } from '../../src/cli/commands/agent.ts'
import { configFlags, systemConfig } from '../../src/cli/config-file.ts'

export function renderConfig(): string {
  const options = configFlags(agentCommand).map((flag) => {
    const { form, summary, choices, default: value } = flag
    const key = /--([a-z-]+)/.exec(form)![1]
    const example = value ?? choices?.[0] ?? ''
    const oneOf = choices ? ` (${choices.join(', ')})` : ''
    return `# ${summary}${oneOf}\n#${key} = ${isSwitch(flag) ? 'false' : JSON.stringify(example)}\n`
  })
  return `# Configuration of \`subpage agent\`: ${systemConfig}, or the file that --config names. The command line and variables (SUBPAGE_LISTEN)
# win over it. \`subpage agent --check-config\` says whether it is right. Made from the table of commands by \`npm run generate\`.

${options.join('\n')}`
}
