/** `subpage support-bundle`: one file for a report of a defect. */
import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { SubpageError } from '../../errors.ts'
import { checkOutput, writeOutput } from '../../output-file.ts'
import { agentFlags, agentOf, stateOf } from '../agent-of.ts'
import type { Command } from '../command.ts'
import { formatBytes } from '../sizes.ts'
import { collect } from '../support-bundle.ts'

const bundleBytesMax = 2 ** 27

export const supportBundleCommand: Command = {
  name: 'support-bundle',
  args: [],
  summary: 'put what a report of a defect needs into one file',
  help: `Example:
  subpage support-bundle -o bundle.tar.gz

Status, events, what check says, versions, and the ends of the logs of supervisors and QEMUs. Consoles, memory and disks of guests are not in it, nor are keys, tokens and passwords: what looks like one is replaced. Read it before you send it (tar -xzf bundle.tar.gz): names of guests and hosts, addresses and paths are in it. Where no agent answers, what there is without it.`,
  flags: [
    ...agentFlags,
    { form: '-o, --output <file>', summary: 'where it goes (required)' },
    { form: '--force', summary: 'replace a file that exists' },
  ],
  async run(invocation) {
    const { flags, output } = invocation
    if (flags.output === undefined)
      throw new SubpageError('BAD_ARGUMENT', 'say where the bundle goes: -o FILE.tar.gz')
    const path = String(flags.output)
    const options = { replace: flags.force === true, mode: 0o600 }
    checkOutput(path, options)
    const agent = agentOf(invocation)
    // One that was named is what it is to be about; of this host there is more than what its agent says.
    if (flags.api !== undefined) await agent.status()
    const files = await collect(agent, flags.api === undefined ? stateOf(invocation) : undefined)
    const folder = mkdtempSync(join(tmpdir(), 'subpage-bundle-'))
    try {
      for (const { name, text } of files) {
        const file = join(folder, 'subpage-bundle', name)
        mkdirSync(dirname(file), { recursive: true })
        writeFileSync(file, text, { mode: 0o600 })
      }
      const packed = await promisify(execFile)('tar', ['-cz', '-C', folder, 'subpage-bundle'], {
        encoding: 'buffer',
        maxBuffer: bundleBytesMax,
      })
      writeOutput(path, packed.stdout, options)
      const names = files.map(({ name }) => name)
      output.data({ path, bytes: packed.stdout.length, files: names }, () =>
        [`${path}: ${formatBytes(packed.stdout.length)}`, ...names.map((name) => `  ${name}`)].join('\n'),
      )
    } finally {
      rmSync(folder, { recursive: true })
    }
  },
}
