/** The configuration file of an agent: what it may hold, who wins over whom, and what `--check-config` says. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse } from 'smol-toml'
import { afterAll, afterEach, expect, test } from 'vitest'
import { agentCommand } from '../../src/cli/commands/agent.ts'
import { configFlags } from '../../src/cli/config-file.ts'
import { perform } from '../../src/cli/perform.ts'
import { packageRoot } from '../../src/memory/native.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-config-'))
const at = (name: string) => join(directory, name)
afterAll(() => rmSync(directory, { recursive: true }))
const variables: string[] = []
afterEach(() => {
  for (const name of variables.splice(0)) delete process.env[name]
})

async function check(toml: string, ...more: string[]) {
  writeFileSync(at('agent.toml'), toml)
  let [out, said] = ['', '']
  const argv = [
    'agent',
    '--state',
    at('state'),
    '--config',
    at('agent.toml'),
    '--check-config',
    '--json',
    ...more,
  ]
  const sinks = {
    out: { write: (text: string) => (out += text) },
    err: { write: (text: string) => (said += text) },
  }
  const status = await perform(argv, sinks)
  return {
    status,
    settings: out === '' ? undefined : JSON.parse(out).settings,
    said: said === '' ? undefined : JSON.parse(said),
  }
}

test('the command line wins over a variable, that over the file, and the file over defaults', async () => {
  const toml = 'host = "file"\nlog-level = "warn"\nswap-after = "10s"\nimages = ["/usr", "/tmp"]\n'
  const { status, settings, said } = await check(toml)
  expect([status, said]).toEqual([0, undefined])
  expect(settings).toMatchObject({ host: 'file', logLevel: 'warn', swapAfter: '10s', images: '/usr:/tmp' })
  process.env.SUBPAGE_HOST = 'variable'
  variables.push('SUBPAGE_HOST')
  expect((await check(toml)).settings.host).toBe('variable')
  expect((await check(toml, '--host', 'line')).settings.host).toBe('line')
  // Given as it is by default, and given all the same.
  expect((await check(toml, '--swap-after', '30s')).settings.swapAfter).toBe('30s')
})

test.each([
  ['a line that is no TOML', 'host = \n', /agent\.toml, line 1, column \d+: /],
  [
    'a key that there is not',
    'hots = "x"\n',
    /agent\.toml: hots is no option of subpage agent: there are listen, host, /,
  ],
  ['one for the command line', 'state = "/x"\n', /agent\.toml: state is for the command line only/],
  ['a value of another form', 'host = 7\n', /agent\.toml: host: write a text in quotes/],
  [
    'a choice that there is not',
    'log-level = "loud"\n',
    /agent\.toml: log-level: write one of "error", "warn"/,
  ],
  ['an address that is none', 'listen = "x:y:z"\n', /"x:y:z" is not an address/],
  ['half of the certificates', 'tls-ca = "/x"\n', /give --tls-ca, --tls-cert and --tls-key together/],
  ['a time out of bounds', 'swap = "/x"\nswap-after = "1h"\n', /agent\.toml: swap-after: /],
  ['a token that is not there', 'api-listen = "127.0.0.1:0"\napi-token-file = "/nowhere/t"\n', /nowhere\/t/],
  [
    'a webhook without its secret',
    'webhook = "https://x/"\n',
    /--webhook and --webhook-secret-file together/,
  ],
  ['an arbiter of no kind', 'arbiter = "dice"\n', /the arbiter cannot be opened/],
])('%s', async (_, toml, message) => {
  const { status, said } = await check(toml)
  expect(status).toBe(2)
  expect(said).toEqual({ code: 'BAD_ARGUMENT', message: expect.stringMatching(message) })
})

test('the file in packaging/ has every option, and is right as it is', async () => {
  const text = readFileSync(join(packageRoot, 'packaging/agent.toml'), 'utf8')
  expect(await check(text)).toMatchObject({ status: 0 })
  const all = parse(text.replace(/^#(\S+ = )/gm, '$1'))
  expect(Object.keys(all)).toEqual(configFlags(agentCommand).map(({ form }) => /--([a-z-]+)/.exec(form)![1]))
})
