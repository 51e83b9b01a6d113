/** `subpage cert`, as a user runs it: what it writes is accepted by OpenSSL, private, and not overwritten by chance. */
import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { makeCa } from '../../src/agent/certificates.ts'
import { certCommand } from '../../src/cli/commands/cert.ts'
import { asSubpageError } from '../../src/errors.ts'
import { packageRoot } from '../../src/memory/native.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-cert-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const at = (...path: string[]) => join(directory, ...path)
const read = (...path: string[]) => readFileSync(at(...path), 'utf8')
const dayMs = 86_400_000

interface Ran {
  status: number
  stdout: string
  stderr: string
}

/** The whole command line, in a process of its own. */
function certProcess(...args: string[]): Promise<Ran> {
  return new Promise((resolve) =>
    execFile(
      process.execPath,
      [join(packageRoot, 'dist/src/cli/main.js'), 'cert', ...args],
      { cwd: directory },
      (error, stdout, stderr) => resolve({ status: Number(error?.code ?? 0), stdout, stderr }),
    ),
  )
}

/** The command itself, with paths below the test's directory. */
async function cert(...args: string[]): Promise<Ran> {
  const values: string[] = []
  const flags: Record<string, string | boolean> = { out: '.', ca: '.' }
  for (let i = 0; i < args.length; i++) {
    const name = /^--(\w+)$/.exec(args[i] ?? '')?.[1]
    if (name === undefined) values.push(args[i] ?? '')
    else flags[name] = name === 'force' ? true : (args[++i] ?? '')
  }
  for (const flag of ['out', 'ca']) flags[flag] = at(String(flags[flag]))
  let stdout = ''
  let stderr = ''
  const output = {
    json: false,
    data(_: unknown, text: () => string) {
      stdout += text()
    },
    verbatim(_: unknown, text: string) {
      stdout += text
    },
    drawn: () => false,
    note(text: string) {
      stderr += text
    },
    warn(text: string) {
      stderr += text
    },
  }
  try {
    await certCommand.run({ args: values, flags, sources: {}, rest: [], output })
    return { status: 0, stdout, stderr }
  } catch (error) {
    const { exit, message, code } = asSubpageError(error)
    return { status: exit, stdout, stderr: `${stderr}${message} (${code})` }
  }
}

beforeAll(async () => {
  expect(await cert('ca', '--out', 'ca')).toMatchObject({ status: 0 })
})

test('a CA', () => {
  const ca = new X509Certificate(read('ca/ca.crt'))
  expect(ca.ca).toBe(true)
  expect(ca.verify(ca.publicKey)).toBe(true)
  expect(ca.publicKey.asymmetricKeyDetails).toMatchObject({ namedCurve: 'prime256v1' })
  expect(Date.parse(ca.validTo) - Date.now()).toBeGreaterThan(3640 * dayMs)
  expect(Date.parse(ca.validFrom)).toBeLessThan(Date.now())
})

test('a host', async () => {
  const made = await certProcess(
    ...[
      'host',
      'alpha',
      '--address',
      '192.0.2.10',
      '--address',
      'alpha.example.org',
      '--address',
      '2001:db8::1',
    ],
    ...['--ca', 'ca', '--out', 'alpha', '--json'],
  )
  expect(made).toMatchObject({ status: 0, stderr: '' })
  expect(JSON.parse(made.stdout)).toMatchObject({ cert: 'alpha/alpha.crt', key: 'alpha/alpha.key' })
  const [ca, alpha] = [new X509Certificate(read('ca/ca.crt')), new X509Certificate(read('alpha/alpha.crt'))]
  expect(alpha.subject).toBe('CN=alpha')
  expect(alpha.checkIssued(ca)).toBe(true)
  expect(alpha.verify(ca.publicKey)).toBe(true)
  expect(alpha.ca).toBe(false)
  for (const ip of ['192.0.2.10', '2001:db8::1']) expect(alpha.checkIP(ip)).toBe(ip)
  for (const name of ['alpha', 'alpha.example.org']) expect(alpha.checkHost(name)).toBe(name)
  expect(alpha.checkIP('192.0.2.11')).toBeUndefined()
  // serverAuth and clientAuth
  expect(alpha.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'])
  expect(Date.parse(alpha.validTo) - Date.now()).toBeGreaterThan(720 * dayMs)
  // All that the host needs is in its directory, and the key of the CA is not.
  expect(readdirSync(at('alpha')).sort()).toEqual(['alpha.crt', 'alpha.key', 'ca.crt'])
  expect(read('alpha/ca.crt')).toBe(read('ca/ca.crt'))
})

test('openssl agrees, where it is installed', async () => {
  await cert('host', 'beta', '--address', '192.0.2.11', '--ca', 'ca', '--out', 'beta')
  const said = await new Promise<string>((resolve) =>
    execFile(
      'openssl',
      ['verify', '-x509_strict', '-CAfile', at('ca/ca.crt'), '-purpose', 'sslclient', at('beta/beta.crt')],
      (error, stdout, stderr) =>
        resolve((error as NodeJS.ErrnoException)?.code === 'ENOENT' ? ': OK' : stdout + stderr),
    ),
  )
  expect(said).toMatch(/: OK/)
})

test('keys are for their owner alone, certificates for all', async () => {
  for (const [path, mode] of [
    ['ca/ca.key', 0o600],
    ['ca/ca.crt', 0o644],
    ['ca', 0o700],
  ] as const)
    expect([path, statSync(at(path)).mode & 0o777]).toEqual([path, mode])
})

test('no key reaches the terminal', async () => {
  const { stdout, stderr } = await certProcess('ca', '--out', 'quiet')
  const secret = read('quiet/ca.key').split('\n')[1] ?? ''
  expect(secret.length).toBeGreaterThan(20)
  expect(stdout + stderr).not.toContain(secret)
  expect(stdout + stderr).not.toContain('PRIVATE KEY')
})

test('nothing is overwritten without --force', async () => {
  await cert('ca', '--out', 'kept')
  const before = read('kept/ca.key')
  const again = await cert('ca', '--out', 'kept')
  expect(again.status).toBe(1)
  expect(again.stderr).toMatch(/kept\/ca\.(crt|key) exists.*--force.*FILE_EXISTS/)
  expect(read('kept/ca.key')).toBe(before)
  expect(await cert('ca', '--out', 'kept', '--force')).toMatchObject({ status: 0 })
  expect(read('kept/ca.key')).not.toBe(before)
  expect(statSync(at('kept/ca.key')).mode & 0o777).toBe(0o600)
})

test('a host is worth no longer than its CA, and --days is kept', async () => {
  await cert('ca', '--out', 'short', '--days', '10')
  await cert('host', 'long', '--ca', 'short', '--out', 'short', '--days', '100')
  await cert('host', 'brief', '--ca', 'short', '--out', 'short', '--days', '2')
  const until = (name: string) => Date.parse(new X509Certificate(read('short', `${name}.crt`)).validTo)
  expect(until('long')).toBe(until('ca'))
  expect(until('brief')).toBeLessThan(Date.now() + 3 * dayMs)
})

test('a CA key that others can read is not used', async () => {
  await cert('ca', '--out', 'open')
  chmodSync(at('open/ca.key'), 0o644)
  const made = await cert('host', 'x', '--ca', 'open', '--out', 'open')
  expect(made).toMatchObject({ status: 12, stderr: expect.stringMatching(/chmod 600.*SECRET_EXPOSED/) })
  expect(existsSync(at('open/x.key'))).toBe(false)
})

test('a CA that can sign nothing that is worth anything is refused, and nothing is left', async () => {
  await cert('ca', '--out', 'one')
  await cert('ca', '--out', 'two')
  await cert('host', 'leaf', '--ca', 'one', '--out', 'leaf')
  await makeCa(at('old'), { days: 2, from: new Date(Date.now() - 10 * dayMs) })
  mkdirSync(at('mixed'))
  copyFileSync(at('one/ca.crt'), at('mixed/ca.crt'))
  copyFileSync(at('two/ca.key'), at('mixed/ca.key'))
  mkdirSync(at('none'))
  copyFileSync(at('leaf/leaf.crt'), at('none/ca.crt'))
  copyFileSync(at('leaf/leaf.key'), at('none/ca.key'))
  for (const [ca, why] of [
    ['mixed', /do not belong together/],
    ['none', /is no certificate of a CA/],
    ['old', /has expired/],
  ] as const) {
    const made = await cert('host', 'x', '--ca', ca, '--out', `new-${ca}`)
    expect(made).toMatchObject({ status: 2, stdout: '', stderr: expect.stringMatching(why) })
    expect(existsSync(at(`new-${ca}`))).toBe(false)
  }
})

const mistakes: [args: string[], reason: RegExp][] = [
  [['ca', 'extra'], /subpage cert host NAME/],
  [['host'], /subpage cert host NAME/],
  [['nonsense'], /subpage cert ca/],
  [['host', 'x', '--ca', 'nowhere'], /subpage cert ca --out .*nowhere/],
  [['host', '../x', '--ca', 'ca'], /cannot be the name of a host/],
  [['host', 'ca', '--ca', 'ca'], /cannot be the name of a host/],
  [['host', 'x', '--ca', 'ca', '--out', 'bad', '--address', 'a b'], /neither an IP address nor a DNS name/],
  [['ca', '--out', 'bad', '--days', '0'], /--days/],
  [['ca', '--out', 'bad', '--days', 'ten'], /--days/],
]
for (const [args, reason] of mistakes)
  test(`cert ${args.join(' ')} is explained`, async () => {
    expect(await cert(...args)).toMatchObject({
      status: 2,
      stdout: '',
      stderr: expect.stringMatching(reason),
    })
    expect(existsSync(at('bad'))).toBe(false)
  })
