/** What `npm pack` gives: all that an installed package needs, nothing of the build, and it runs, with and without the lab. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { get, type IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { exitStatus } from '../src/errors.ts'
import { connect } from '../src/index.ts'
import { packageRoot } from '../src/memory/native.ts'

const folder = mkdtempSync(join(tmpdir(), 'subpage-package-'))
const modules = join(folder, 'node_modules')
const installed = join(modules, 'subpage')
const lab = join(modules, 'subpage-lab')
afterAll(() => rmSync(folder, { recursive: true }))

let files: string[]

beforeAll(() => {
  // The compiled files are those of this source.
  execFileSync('npm', ['run', 'build'], { cwd: packageRoot })
  mkdirSync(modules)
  files = install(packageRoot, installed)
  // Its dependencies lie beside it, as npm places them.
  for (const name of readdirSync(join(packageRoot, 'node_modules')))
    if (!/^(\.|subpage)/.test(name)) symlinkSync(join(packageRoot, 'node_modules', name), join(modules, name))
}, 120_000)

/** Packs and unpacks. @returns the files of the package */
function install(from: string, to: string): string[] {
  const { filename, files } = packed(from)
  execFileSync('tar', ['-xzf', filename], { cwd: folder })
  renameSync(join(folder, 'package'), to)
  return files
}

function packed(from: string): { filename: string; files: string[] } {
  const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', folder]
  const [{ filename, files }] = JSON.parse(execFileSync('npm', args, { cwd: from, encoding: 'utf8' }))
  return { filename, files: files.map(({ path }: { path: string }) => path) }
}

const run = (...args: string[]) =>
  spawnSync(process.execPath, [join(installed, 'dist/src/cli/main.js'), ...args], {
    cwd: folder,
    encoding: 'utf8',
  })

/** The files below a folder of the repository whose names are wanted. */
const below = (folder: string, wanted: RegExp) =>
  readdirSync(join(packageRoot, folder), { recursive: true, encoding: 'utf8' })
    .map((path) => join(folder, path))
    .filter((path) => wanted.test(path))

/** What the compiler makes of a folder of sources. */
const compiled = (folder: string) =>
  below(folder, /\.ts$/)
    .map((path) => join('dist', relative(join(packageRoot, folder, '..'), join(packageRoot, path))))
    .flatMap((path) => ['.js', '.d.ts'].map((ending) => path.replace(/\.ts$/, ending)))

const named =
  `ARCHITECTURE.md CHANGELOG.md LICENSE README.md SPECIFICATION.md THIRD-PARTY.md bin/subpage package.json
  build/native/shim.so build/native/subpage.node scripts/build-guest.sh scripts/build-native.sh scripts/native.bash
  packaging/prometheus/alerts.test.yml packaging/prometheus/alerts.yml packaging/prometheus/grafana.json
  packaging/agent.toml packaging/subpage-agent.service packaging/subpage-drain.service guest/README.md guest/init guest/power-button
  guest/bare/check.c guest/bare/link.ld guest/bare/start.S guest/diskload.c guest/sum.c guest/victim.c guest/workset.c`.split(
    /\s+/,
  )

test('it holds what is compiled, what can be built anew where it is installed, the documents, and nothing else', () => {
  const expected = [
    ...named,
    ...compiled('src'),
    ...below('native', /^native\/(?!fuzz\/).*\.[ch]$/),
    ...below('guest/workloads', /\/(demo|full)\/\w+$/),
    ...below('build/web', /\.(html|js|css|svg)$/),
    ...below('dist/vendor', /\.js$/),
    ...below('man', /\.1$/),
    ...below('docs', /\.(md|json|png)$/),
  ]
  expect(files.toSorted()).toEqual(expected.toSorted())
})

test('the lab holds the same of its own', () => {
  const list = packed(join(packageRoot, 'lab')).files
  const expected = [
    ...'README.md package.json build/native/holder build/native/plugin.so build/native/reaper scripts/build-native.sh'.split(
      ' ',
    ),
    ...compiled('lab/src'),
    ...['native', 'workloads', 'docs'].flatMap((folder) =>
      below(join('lab', folder), /\.(c|h|json|md)$/).map((path) => relative('lab', path)),
    ),
  ]
  expect(list.toSorted()).toEqual(expected.toSorted())
})

test('the addon needs no library that is not everywhere', () => {
  const addon = join(installed, 'build/native/subpage.node')
  const needed = execFileSync('ldd', [addon], { encoding: 'utf8' })
  expect(
    needed
      .match(/^\s+\S+\.so\S*/gm)
      ?.map((name) => name.trim())
      .filter((name) => !/linux|^libc\./.test(name)),
  ).toEqual([])
})

describe('where there is no compiler', () => {
  const programs = join(folder, 'programs')
  const state = join(folder, 'state')
  const env = { ...process.env, PATH: programs }
  beforeAll(() => {
    mkdirSync(programs)
    symlinkSync(process.execPath, join(programs, 'node'))
    const path = process.env.PATH!.split(':')
    // Another QEMU than that of the path is named by SUBPAGE_QEMU.
    for (const name of ['sh', 'dirname', 'readlink', 'qemu-system-x86_64', 'qemu-img'])
      for (const file of path
        .map((place) => join(place, name))
        .filter((file) => existsSync(file))
        .slice(0, 1))
        symlinkSync(file, join(programs, name))
  })

  test('the command checks, an agent runs a guest, and a program sees it', async () => {
    const command = join(installed, 'bin/subpage')
    const { status, stdout } = spawnSync(command, ['check', '--json'], { env, encoding: 'utf8' })
    expect([status, stdout]).toEqual([0, expect.stringContaining('native addon')])
    const agent = spawn(command, ['agent', '--state', state], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    try {
      await expect.poll(() => existsSync(join(state, 'api.sock'))).toBe(true)
      const program = `import { connect } from 'subpage'
        const agent = connect({ state: ${JSON.stringify(state)} })
        await agent.run({ name: 'web', ramBytes: 64 * 2 ** 20, accel: 'tcg', options: [] })
        console.log((await agent.status()).guests.map(({ name }) => name))
        await agent.remove('web')`
      expect(evaluate(program, env)).toMatchObject({ status: 0, stdout: "[ 'web' ]\n", stderr: '' })
    } finally {
      agent.kill('SIGTERM')
      await once(agent, 'exit')
    }
  })
})

test('an agent and supervisors load nothing late: they run on while an upgrade replaces their files', async () => {
  // A copy with dependencies of its own, by links: taking a file away here takes it from nobody else.
  const copy = join(folder, 'upgraded')
  const root = join(copy, 'node_modules/subpage')
  mkdirSync(join(copy, 'node_modules'), { recursive: true })
  execFileSync('cp', ['-rl', installed, root])
  const lock = JSON.parse(readFileSync(join(packageRoot, 'package-lock.json'), 'utf8'))
  for (const [path, { dev, link }] of Object.entries<{ dev?: boolean; link?: boolean }>(lock.packages))
    if (/^node_modules\/(@[^/]+\/)?[^/]+$/.test(path) && !dev && !link) {
      mkdirSync(dirname(join(copy, path)), { recursive: true })
      execFileSync('cp', ['-rl', join(packageRoot, path), join(copy, path)])
    }
  const hosts = await Promise.all(
    ['a', 'b'].map(async (host) => {
      const state = join(copy, host)
      const args = ['agent', '--ephemeral', '--state', state, '--host', host, '--arbiter', `file:${folder}`]
      const agent = spawn(join(root, 'bin/subpage'), args, { stdio: ['pipe', 'ignore', 'inherit'] })
      await expect.poll(() => existsSync(join(state, 'api.sock'))).toBe(true)
      return { agent, state, client: connect({ state }) }
    }),
  )
  try {
    const [{ client, state }, other] = hosts as [(typeof hosts)[0], (typeof hosts)[0]]
    await client.run({ name: 'web', ramBytes: 32 * 2 ** 20, accel: 'tcg', options: ['-vga', 'std'] })
    const settings = { to: other.state, epochMs: 25, suspicionMs: 2000 } as const
    await client.protect('web', { ...settings, outputs: 'held', tracker: 'auto', codec: 'masked' })
    await expect.poll(async () => (await client.guest('web')).state).toBe('Protected')

    execFileSync('find', [copy, '-type', 'f', '-regex', '.*\\.[cm]?js', '!', '-path', '*/build/*', '-delete'])

    const metrics = await request(join(state, 'api.sock'), '/metrics')
    expect(metrics).toContain('subpage_guest_state')
    expect(await client.verify('web')).toMatchObject({ equal: true })
    expect((await client.screenshot('web')).png).not.toBe('')
    const sample = client.watchMemory('web', { intervalMs: 100, subIntervals: 1, budget: 0.1 })
    expect((await sample.next()).value).toHaveProperty('atMs')
    await sample.return(undefined)
    await expect(client.failover('web')).rejects.toMatchObject({ code: 'STANDBY_NOT_READY' })
    await expect(client.run({ name: 'x' } as never)).rejects.toMatchObject({ code: 'BAD_ARGUMENT' })
    const { url } = await client.dashboard({ readOnly: false })
    expect(await (await fetch(url)).text()).toContain('<title>')
    expect(await client.recentEvents()).not.toHaveLength(0)
    await client.switchover('web')
    await expect.poll(async () => (await other.client.guest('web')).role).not.toBe('Standby')
    await other.client.unprotect('web')
    await other.client.remove('web')
  } finally {
    for (const { agent } of hosts) {
      agent.stdin?.end()
      if (agent.exitCode === null) await once(agent, 'exit')
    }
  }
}, 120_000)

/** The body of an answer to GET on a socket. */
async function request(socketPath: string, path: string): Promise<string> {
  const [answer] = (await once(get({ socketPath, path }), 'response')) as [IncomingMessage]
  return (await answer.setEncoding('utf8').toArray()).join('')
}

test('it says what it can do, and what this host offers', () => {
  expect(run('--help')).toMatchObject({ status: 0, stdout: expect.stringContaining('subpage') })
  const { stdout } = run('check', '--json')
  expect(JSON.parse(stdout)).toHaveProperty('items')
})

test('the demo says what it needs before it starts anything', () => {
  const { status, stderr } = run('demo')
  expect(status).not.toBe(0)
  const lines = stderr.trim().split('\n')
  expect(lines[0]).toContain(join(installed, 'scripts/build-guest.sh'))
  expect(stderr).not.toMatch(/agent|\s+at /)
  expect(existsSync(join(installed, 'scripts/build-guest.sh'))).toBe(true)
})

const evaluate = (script: string, env = process.env) =>
  spawnSync(process.execPath, ['--input-type=module', '-e', script], { cwd: folder, encoding: 'utf8', env })

test('it is a client with types; of the agent it shows nothing else', () => {
  const script = `import { connect, SubpageError } from 'subpage'
    const error = await connect({ state: '/nowhere' }).status().catch((thrown) => thrown)
    console.log(error instanceof SubpageError, error.code)`
  expect(evaluate(script)).toMatchObject({ status: 0, stdout: 'true AGENT_UNREACHABLE\n' })
  expect(files).toContain('dist/src/index.d.ts')
  for (const other of ['dist/src/errors.js', 'agent/agent'])
    expect(evaluate(`import 'subpage/${other}'`).stderr).toContain('ERR_PACKAGE_PATH_NOT_EXPORTED')
})

describe('the lab', () => {
  const trace = join(packageRoot, 'lab/test/analysis/small.trace')
  const ofLab = [
    ['record', '-o', join(folder, 'a.trace'), '--for', '1s', '--', 'sleep', '1'],
    ['report', trace, '--html', 'x'],
    ['study'],
    ['wss', trace],
  ]
  /** What it says of each of these commands: one line, with one code. */
  const said = (commands = ofLab) =>
    commands.map((args) => {
      const { status, stdout, stderr } = run(...args)
      expect([status, stdout]).toEqual([exitStatus.lacksFeature, ''])
      return stderr
    })
  const place = (source: string) => {
    mkdirSync(lab)
    writeFileSync(join(lab, 'package.json'), '{"name":"subpage-lab","type":"module","exports":"./index.js"}')
    writeFileSync(join(lab, 'index.js'), source)
  }
  afterEach(() => rmSync(lab, { recursive: true, force: true }))

  test('without it, its commands say in one line how to get it, and the others work', () => {
    for (const line of said())
      expect(line).toMatch(
        /^subpage: .* which is not installed: run npm install --prefix \S+ subpage-lab@\S+ .*\(LAB_MISSING\)\n$/,
      )
    expect(JSON.parse(run('study', '--json').stderr).code).toBe('LAB_MISSING')
    expect(run('help').stdout).toMatch(/ record .* report .* study /s)
    expect(run('check', '--json').stderr).toBe('')
  })

  test('one of another release, and one that is broken, is as good as none', () => {
    place(`export default { release: '0.0.0' }`)
    for (const line of said([['study']]))
      expect(line).toMatch(/but the one that is installed is 0\.0\.0: .*\(LAB_MISSING\)\n$/)
    rmSync(lab, { recursive: true })
    place(`import 'no-such-module'`)
    for (const line of said([['study']]))
      expect(line).toMatch(/cannot be loaded \(Cannot find package 'no-such-module'.*LAB_MISSING/)
    expect(run('check', '--json').stderr).toBe('')
  })

  test('with it, they work', () => {
    install(join(packageRoot, 'lab'), lab)
    expect(run('study').stdout).toContain('amplification')
    expect(run('report', trace)).toMatchObject({ status: 0, stderr: '' })
    expect(run('wss', trace, '--interval', '50ms')).toMatchObject({ status: 0, stderr: '' })
    const path = join(folder, 'a.trace')
    expect(run('record', '-o', path, '--', 'true')).toMatchObject({ status: 0 })
    expect(existsSync(path)).toBe(true)
  })
})

test('the remedy of a missing addon works where the package is installed', () => {
  rmSync(join(installed, 'build/native/subpage.node'))
  writeFileSync(join(folder, 'image'), new Uint8Array(4096))
  expect(run('density', 'analyze', 'image').stderr).toContain('npm run build:native')
  execFileSync('npm', ['run', 'build:native'], { cwd: installed, stdio: 'pipe' })
  expect(existsSync(join(installed, 'build/native/subpage.node'))).toBe(true)
}, 300_000)

test('no dependency wants a newer Node than the package does', () => {
  const lock = JSON.parse(readFileSync(join(packageRoot, 'package-lock.json'), 'utf8'))
  const wanting = Object.entries<{ dev?: boolean; engines?: { node?: string } }>(lock.packages)
    .filter(([name, { dev }]) => name !== '' && !dev)
    .filter(([, { engines }]) => /^>=\s*(2[1-9]|[3-9]\d)/.test(engines?.node ?? ''))
  expect(wanting.map(([name]) => name)).toEqual([])
})
