/** What packaging/ has: systemd understands every line of the units, and exposes little; the Debian package is whole. */
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { packageRoot } from '../src/package-root.ts'

const from = join(packageRoot, 'packaging')
const units = readdirSync(from).filter((name) => name.endsWith('.service'))
const folder = mkdtempSync(join(tmpdir(), 'subpage-units-'))
beforeAll(() => {
  for (const unit of units) copyFileSync(join(from, unit), join(folder, unit))
})
afterAll(() => rmSync(folder, { recursive: true }))

const analyze = (...args: string[]) => {
  const { status, stdout, stderr, error } = spawnSync('systemd-analyze', args, {
    encoding: 'utf8',
    env: { ...process.env, SYSTEMD_UNIT_PATH: `${folder}:` },
  })
  if (error)
    throw new Error('systemd-analyze does not start (Debian: apt-get install systemd)', { cause: error })
  return { status, said: stdout + stderr }
}

test.each(units)('%s has no line that systemd does not know', (unit) => {
  const { said } = analyze('verify', '--man=no', join(folder, unit))
  // What it says of other units of this machine is not ours.
  expect(said.split('\n').filter((line) => line.includes(unit))).toEqual([])
})

test.each(units)('%s exposes no more than it must', (unit) => {
  const { status, said } = analyze(
    'security',
    '--no-pager',
    '--offline=true',
    '--threshold=50',
    join(folder, unit),
  )
  expect({ status, said }).toMatchObject({ status: 0, said: expect.stringMatching(/Overall exposure level/) })
})

test('the agent is told apart from its guests: what says that it serves, and what ends, is the agent alone', () => {
  const unit = readFileSync(join(from, 'subpage-agent.service'), 'utf8')
  for (const line of [
    'Type=notify',
    'NotifyAccess=main',
    'WatchdogSec=30s',
    'KillMode=process',
    'RuntimeDirectoryPreserve=yes',
  ])
    expect(unit.split('\n')).toContain(line)
})

test('an agent that fails for however long is started again, and a host that is shut down moves its guests first', () => {
  const lines = (unit: string) => readFileSync(join(from, unit), 'utf8').split('\n')
  expect(lines('subpage-agent.service')).toEqual(
    expect.arrayContaining(['StartLimitIntervalSec=0', 'Restart=always']),
  )
  const drain = lines('subpage-drain.service')
  expect(drain).toContainEqual(expect.stringMatching(/^After=(.* )?subpage-agent\.service( |$)/))
  expect(drain).toContainEqual(expect.stringMatching(/^ExecStop=-?\S.* subpage drain$/))
})

// Installed in a clean root it is by scripts/test-package.sh.
describe('the Debian package', () => {
  const root = join(folder, 'root')
  let deb: string
  beforeAll(() => {
    const build = join(packageRoot, 'packaging/deb/build.sh')
    deb = join(packageRoot, execFileSync('bash', [build, '--fast'], { encoding: 'utf8' }).trim())
    execFileSync('dpkg-deb', ['--raw-extract', deb, root])
  }, 240_000)
  const has = (path: string) => existsSync(join(root, path))

  test('names what it depends on, and the configuration as a file that an upgrade keeps', () => {
    const field = (name: string) => execFileSync('dpkg-deb', ['--field', deb, name], { encoding: 'utf8' })
    const { engines, version } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8'))
    expect(field('Depends')).toContain(`nodejs (${engines.node.replace('>=', '>= ')})`)
    expect(field('Version')).toBe(`${version}-1\n`)
    expect(readFileSync(join(root, 'DEBIAN/conffiles'), 'utf8')).toBe('/etc/subpage/agent.toml\n')
  })

  test('has units, a manual page for each command, completions, and the licence of each dependency', () => {
    for (const unit of units) expect(has(`usr/lib/systemd/system/${unit}`)).toBe(true)
    for (const page of readdirSync(join(packageRoot, 'man')))
      expect(has(`usr/share/man/man1/${page}.gz`)).toBe(true)
    for (const path of ['bash-completion/completions/subpage', 'zsh/vendor-completions/_subpage'])
      expect(readFileSync(join(root, 'usr/share', path), 'utf8')).toContain('subpage')
    const copyright = readFileSync(join(root, 'usr/share/doc/subpage/copyright'), 'utf8')
    for (const module of readdirSync(join(root, 'usr/lib/subpage/node_modules')).filter(
      (name) => name[0] !== '@',
    ))
      expect(copyright).toContain(`node_modules/${module}/`)
  })

  test('has scripts that a shell reads, and that stop nothing in an upgrade', () => {
    for (const script of ['postinst', 'prerm', 'postrm']) {
      const path = join(root, 'DEBIAN', script)
      expect(spawnSync('sh', ['-n', path])).toMatchObject({ status: 0 })
    }
    expect(
      spawnSync('sh', ['-x', join(root, 'DEBIAN/prerm'), 'upgrade'], { encoding: 'utf8' }),
    ).toMatchObject({
      status: 0,
      stderr: expect.not.stringContaining('systemd'),
    })
  })

  test('works where it is unpacked, and takes nothing from the checkout', () => {
    const command = join(root, 'usr/lib/subpage/bin/subpage')
    const { status, stdout } = spawnSync(command, ['check', '--json'], { cwd: '/', encoding: 'utf8' })
    expect(status).toBe(0)
    expect(JSON.parse(stdout)).toHaveProperty('items')
    expect(
      spawnSync(command, ['agent', '--check-config', '--config', join(root, 'etc/subpage/agent.toml')]),
    ).toMatchObject({ status: 0 })
  })
})
