/**
 * Real etcd processes on free loopback ports, in directories that go with them: one member or several, over TLS with
 * client certificates, with users and passwords. The kernel ends them should the test run be killed.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { ArbiterOptions } from '../../src/replication/arbiters/open.ts'
import { standStill } from './stand-still.ts'

const startMs = 30_000
const pollMs = 20

export interface EtcdOptions {
  members?: 1 | 3
  /** Clients come over https and show a certificate of the same authority. */
  tls?: boolean
  /** Enables authentication: root, and `subpage` with rights below /subpage/ alone. */
  users?: boolean
}

export const passwords = { root: 'the root password', subpage: 'pass "word" €' }

interface Member {
  name: string
  clientPort: number
  peerPort: number
  process?: ChildProcess
}

export class EtcdCluster {
  readonly directory = mkdtempSync(join(tmpdir(), 'subpage-etcd-'))
  readonly #options: EtcdOptions
  #members: Member[] = []
  #token: string | undefined

  private constructor(options: EtcdOptions) {
    this.#options = options
  }

  /** Resolves when the cluster answers a linearizable read. */
  static async start(options: EtcdOptions = {}): Promise<EtcdCluster> {
    const cluster = new EtcdCluster(options)
    try {
      if (options.tls) makeCertificates(cluster.directory)
      await cluster.#begin(options.members ?? 1)
      if (options.users) await cluster.#enableUsers()
      return cluster
    } catch (error) {
      await cluster[Symbol.asyncDispose]()
      throw error
    }
  }

  get ports(): number[] {
    return this.#members.map(({ clientPort }) => clientPort)
  }

  /** `etcd:…`, through other ports if given. */
  spec(ports = this.ports): string {
    return `etcd:${ports.map((port) => this.#url(port)).join(',')}`
  }

  /** What a client needs besides. */
  get access(): ArbiterOptions {
    const file = (name: string) => join(this.directory, name)
    // With users enabled, etcd's gateway refuses client certificates that have a common name.
    const client = this.#options.users ? 'nameless' : 'client'
    return {
      ...(this.#options.tls
        ? { caFile: file('ca.pem'), certFile: file(`${client}.pem`), keyFile: file(`${client}.key`) }
        : {}),
      ...(this.#options.users ? { user: 'subpage', passwordFile: file('password') } : {}),
    }
  }

  /** One call of the gateway, at one member, as root where there are users. */
  async call(path: string, body: unknown, member = 0): Promise<Record<string, unknown>> {
    const { clientPort } = this.#members[member]!
    return await this.#post(clientPort, path, body)
  }

  /** Anew after a restart, and after rights were changed: that ends the validity of tokens. */
  async signInAsRoot(): Promise<void> {
    this.#token = undefined
    const credentials = { name: 'root', password: passwords.root }
    this.#token = (await this.call('/v3/auth/authenticate', credentials)).token as string
  }

  /** Index of the member that leads. */
  async leader(): Promise<number> {
    for (const member of this.#members.keys()) {
      if (!this.#members[member]?.process) continue
      const { header, leader } = (await this.call('/v3/maintenance/status', {}, member)) as {
        header: { member_id: string }
        leader: string
      }
      if (header.member_id === leader) return member
    }
    throw new Error('no member leads')
  }

  /** Until {@link thaw}. */
  async freeze(member: number): Promise<void> {
    await standStill(this.#members[member]!.process!.pid!)
  }

  thaw(member: number): void {
    this.#members[member]?.process?.kill('SIGCONT')
  }

  async kill(...members: number[]): Promise<void> {
    await Promise.all(
      members.map(async (index) => {
        const member = this.#members[index]!
        const child = member.process
        delete member.process
        if (!child || child.exitCode !== null || child.signalCode !== null) return
        const exit = once(child, 'exit')
        child.kill('SIGKILL')
        await exit
      }),
    )
  }

  /** Starts killed members again, on their data and ports, and waits until the cluster answers. */
  async restart(...members: number[]): Promise<void> {
    for (const index of members) this.#spawn(this.#members[index]!)
    await this.#ready()
  }

  /** Of one member: copies its data, as a backup of the host would. */
  async backUp(): Promise<void> {
    await this.#whileDown((data, backup) => cpSync(data, backup, { recursive: true }))
  }

  /** What was decided since the backup is forgotten. */
  async restore(): Promise<void> {
    await this.#whileDown((data, backup) => {
      rmSync(data, { recursive: true })
      cpSync(backup, data, { recursive: true })
    })
  }

  /** A new cluster of the same name and addresses. */
  async wipe(): Promise<void> {
    await this.#whileDown((data) => rmSync(data, { recursive: true }))
  }

  async #whileDown(work: (data: string, backup: string) => void): Promise<void> {
    await this.kill(0)
    const { name } = this.#members[0]!
    work(join(this.directory, name, 'data'), join(this.directory, name, 'backup'))
    await this.restart(0)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill(...this.#members.keys())
    rmSync(this.directory, { recursive: true, force: true })
  }

  /** Another process may take a free port before etcd does: then all are chosen anew. */
  async #begin(count: number): Promise<void> {
    for (let tries = 1; ; tries++) {
      const ports = await freePorts(2 * count)
      this.#members = Array.from({ length: count }, (_, index) => ({
        name: `m${index}`,
        clientPort: ports[2 * index]!,
        peerPort: ports[2 * index + 1]!,
      }))
      try {
        for (const member of this.#members) this.#spawn(member)
        return await this.#ready()
      } catch (error) {
        if (tries === 3 || !/address already in use/.test(this.#logs())) throw error
        await this.kill(...this.#members.keys())
        for (const { name } of this.#members) rmSync(join(this.directory, name), { recursive: true })
      }
    }
  }

  #spawn(member: Member): void {
    const peer = ({ peerPort }: Member) => `http://127.0.0.1:${peerPort}`
    const file = (name: string) => join(this.directory, name)
    const flags: Record<string, string> = {
      name: member.name,
      'data-dir': file(`${member.name}/data`),
      'listen-client-urls': this.#url(member.clientPort),
      'advertise-client-urls': this.#url(member.clientPort),
      'listen-peer-urls': peer(member),
      'initial-advertise-peer-urls': peer(member),
      'initial-cluster': this.#members.map((each) => `${each.name}=${peer(each)}`).join(','),
      'initial-cluster-state': 'new',
      logger: 'zap',
      'log-level': 'warn',
      ...(this.#options.tls
        ? {
            'cert-file': file('server.pem'),
            'key-file': file('server.key'),
            'client-cert-auth': 'true',
            'trusted-ca-file': file('ca.pem'),
          }
        : {}),
    }
    const args = Object.entries(flags).map(([flag, value]) => `--${flag}=${value}`)
    mkdirSync(file(member.name), { recursive: true, mode: 0o700 })
    const log = openSync(this.#log(member), 'a', 0o600)
    // setpriv(1) becomes etcd: the pid is etcd's own.
    member.process = spawn('setpriv', ['--pdeathsig=KILL', '--', 'etcd', ...args], {
      stdio: ['ignore', log, log],
    })
    member.process.on('error', (error) => writeFileSync(this.#log(member), `${error}\n`, { flag: 'a' }))
    closeSync(log)
  }

  async #ready(): Promise<void> {
    const deadline = performance.now() + startMs
    for (const member of this.#members) {
      for (;;) {
        if (!member.process) break
        if (member.process.exitCode !== null || performance.now() > deadline)
          throw new Error(`etcd does not start (Debian: apt-get install etcd-server)\n${this.#logs()}`)
        const health = await this.#get(member.clientPort, '/health').catch((error: Error) => error.message)
        if (health.includes('"true"')) break
        await delay(pollMs)
      }
    }
  }

  async #enableUsers(): Promise<void> {
    const key = Buffer.from('/subpage/').toString('base64')
    const end = Buffer.from('/subpage0').toString('base64')
    const role = { name: 'subpage', perm: { permType: 'READWRITE', key, range_end: end } }
    await this.call('/v3/auth/role/add', { name: 'root' })
    await this.call('/v3/auth/role/add', { name: 'subpage' })
    await this.call('/v3/auth/role/grant', role)
    for (const name of ['root', 'subpage'] as const) {
      await this.call('/v3/auth/user/add', { name, password: passwords[name] })
      await this.call('/v3/auth/user/grant', { user: name, role: name })
    }
    await this.call('/v3/auth/enable', {})
    writeFileSync(join(this.directory, 'password'), `${passwords.subpage}\n`, { mode: 0o600 })
    await this.signInAsRoot()
  }

  #url(port: number): string {
    return `${this.#options.tls ? 'https' : 'http'}://127.0.0.1:${port}`
  }

  async #post(port: number, path: string, body: unknown): Promise<Record<string, unknown>> {
    const text = await this.#send(port, 'POST', path, JSON.stringify(body))
    const answer = JSON.parse(text) as Record<string, unknown>
    if ('error' in answer) throw new Error(`${path}: ${text}`)
    return answer
  }

  #get(port: number, path: string): Promise<string> {
    return this.#send(port, 'GET', path, '')
  }

  #send(port: number, method: string, path: string, body: string): Promise<string> {
    const pem = (name: string) => readFileSync(join(this.directory, name))
    const headers = {
      'content-length': Buffer.byteLength(body),
      ...(this.#token ? { authorization: this.#token } : {}),
    }
    const options = { method, headers, agent: false, signal: AbortSignal.timeout(10_000) } as const
    const url = new URL(path, this.#url(port))
    return new Promise((resolve, reject) => {
      const request = this.#options.tls
        ? httpsRequest(url, {
            ...options,
            ca: pem('ca.pem'),
            cert: pem('nameless.pem'),
            key: pem('nameless.key'),
          })
        : httpRequest(url, options)
      request.on('error', reject)
      request.on('response', (response) => {
        let text = ''
        response.setEncoding('utf8')
        response.on('data', (chunk) => {
          text += chunk
        })
        response.on('error', reject)
        response.on('end', () => resolve(text))
      })
      request.end(body)
    })
  }

  #log({ name }: Member): string {
    return join(this.directory, `${name}/log`)
  }

  #logs(): string {
    return this.#members
      .map((member) => `--- ${member.name}\n${readFileSync(this.#log(member), 'utf8').slice(-4000)}`)
      .join('\n')
  }
}

/** All taken at once, so that they differ. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map((server) => once(server, 'listening')))
  const ports = servers.map((server) => (server.address() as { port: number }).port)
  await Promise.all(servers.map((server) => once(server.close(), 'close')))
  return ports
}

/** An authority, a server certificate for the loopback address, a client certificate, and a stranger's of another authority. */
function makeCertificates(directory: string): void {
  const make = (args: string) =>
    execFileSync('openssl', args.split(' '), { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] })
  const key = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2'
  for (const authority of ['ca', 'stranger-ca'])
    make(
      `${key} -keyout ${authority}.key -out ${authority}.pem -subj /CN=${authority} -addext basicConstraints=critical,CA:TRUE`,
    )
  const leaf = (name: string, authority: string, extensions: string, subject = `/CN=${name}`) =>
    make(
      `${key} -CA ${authority}.pem -CAkey ${authority}.key -keyout ${name}.key -out ${name}.pem -subj ${subject} ` +
        `-addext basicConstraints=CA:FALSE ${extensions}`,
    )
  // The gateway inside etcd is a client of etcd, with the server's certificate: it must be good for both.
  leaf('server', 'ca', '-addext subjectAltName=IP:127.0.0.1 -addext extendedKeyUsage=serverAuth,clientAuth')
  leaf('client', 'ca', '-addext extendedKeyUsage=clientAuth')
  leaf('nameless', 'ca', '-addext extendedKeyUsage=clientAuth', '/O=subpage')
  leaf('stranger', 'stranger-ca', '-addext extendedKeyUsage=clientAuth')
}
