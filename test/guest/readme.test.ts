/** The commands of README.md, one after the other as they stand there: each works after those before it. */
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { packageRoot } from '../../src/package-root.ts'
import { Hosts, until } from '../support/hosts.ts'

const run = promisify(execFile)

/** Of all blocks that have some, comments and line ends joined. */
function examples(): string[] {
  const text = readFileSync(join(packageRoot, 'README.md'), 'utf8')
  const blocks = [...text.matchAll(/^```\n([\s\S]*?)^```$/gm)].map((block) => block[1]!)
  return blocks
    .filter((block) => block.includes('bin/subpage'))
    .flatMap((block) => block.replace(/\\\n\s*/g, '').split('\n'))
    .map((line) => line.replace(/ {2,}#.*$/, '').replace(/ {2,}# terminal.*$/, ''))
    .filter((line) => line !== '')
}

test('the commands follow each other', async () => {
  await using hosts = new Hosts()
  const said: Record<string, string> = {}
  for (const example of examples()) {
    const agent = /^bin\/subpage agent --state \/tmp\/([ab]) --host ([ab])$/.exec(example)
    if (agent) {
      await hosts.add(agent[1]!)
      continue
    }
    const command = example
      .replaceAll(/\/tmp\/([ab])\b/g, (_, host) => join(hosts.directory, host))
      .replaceAll('python.trace', join(hosts.directory, 'python.trace'))
      .replace('--for 10s', '--for 2s')
    const { stdout } = await run('bash', ['-c', command], { cwd: packageRoot }).catch(
      (error: { code: number; stdout: string; stderr: string }) => {
        // Right after a takeover a guest is not protected yet, and says so.
        if (/^bin\/subpage status/.test(example) && [3, 4].includes(error.code)) return error
        throw new Error(`${command}\n${error.stderr}`)
      },
    )
    said[example.replace(/^bin\/subpage /, '').split(' ')[0]!] = stdout
    if (example.startsWith('kill')) await until(hosts.agents[1]!, 'web', ({ role }) => role !== 'Standby')
  }
  expect(Object.keys(said)).toEqual(
    expect.arrayContaining([
      'check',
      'run',
      'protect',
      'status',
      'verify',
      'kill',
      'record',
      'wss',
      'remove',
    ]),
  )
  expect(said.status).toMatch(/takeover/)
  expect(said.report).toMatch(/amplification/)
  for (const { client } of hosts.agents) expect((await client.status()).guests).toEqual([])
})

test('the program in docs/client.md runs', async () => {
  await using hosts = new Hosts()
  for (const host of ['a', 'b']) await hosts.add(host)
  const [, program = ''] =
    /^```js\n([\s\S]*?)^```$/m.exec(readFileSync(join(packageRoot, 'docs/client.md'), 'utf8')) ?? []
  const script = program
    .replaceAll(/\/tmp\/([ab])\b/g, (_, host) => join(hosts.directory, host))
    .replace("'subpage'", JSON.stringify(join(packageRoot, 'dist/src/index.js')))
  const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script])
  expect(stdout).toMatch(/^web Protected[\s\S]*^true$/m)
})
