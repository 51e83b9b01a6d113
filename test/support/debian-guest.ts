/**
 * The Debian guest (scripts/build-debian.sh) and its clients outside, in a network namespace: pgbench, rows with numbers that are acknowledged
 * one by one, and a shell, each over TCP connections that last as long as they do.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { packageRoot } from '../../src/memory/native.ts'
import { assertClean } from './guest-disk.ts'
import type { Connection, TestNetwork } from './network.ts'

const built = join(packageRoot, 'build/debian')
const guestAddress = '10.81.0.2'
export const clientAddress = '10.81.0.1/24'
export const guestRamBytes = 384 * 2 ** 20
const shellPort = 7000
/** Of its file system on the disk (scripts/build-debian.sh). */
const systemOffset = 9 * 2 ** 20

/** Builds the guest if its sources are new, and makes a disk for one. */
export function makeSystemDisk(path: string): void {
  execFileSync('bash', ['scripts/build-debian.sh'], {
    cwd: packageRoot,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  execFileSync('cp', ['--sparse=always', join(built, 'system.raw'), path])
}

/** @throws Error when the file system of a disk, which nobody uses, is damaged. @param path a raw file, which stays as it is */
export function assertSystemClean(path: string): void {
  const system = `${path}.system`
  execFileSync('dd', [
    ...[
      `if=${path}`,
      `of=${system}`,
      'bs=1M',
      `skip=${systemOffset / 2 ** 20}`,
      'conv=sparse',
      'status=none',
    ],
  ])
  // Without what follows it on the disk.
  assertClean(system)
}

/** A root shell of the guest. */
export class Shell {
  readonly connection: Connection
  #commands = 0

  private constructor(connection: Connection) {
    this.connection = connection
  }

  /** Resolves when the guest has booted so far that it listens. */
  static async open(network: TestNetwork, client: string, limitMs = 150_000): Promise<Shell> {
    const deadline = performance.now() + limitMs
    for (;;)
      try {
        return new Shell(await network.connect(client, guestAddress, shellPort))
      } catch (error) {
        if (performance.now() > deadline) throw error
        await delay(200)
      }
  }

  /** What a command prints, errors too. @throws Error when it fails */
  async run(command: string, limitMs = 60_000): Promise<string> {
    const { status, said } = await this.try(command, limitMs)
    if (status !== 0) throw new Error(`${command} ended with ${status}: ${said}`)
    return said
  }

  async try(command: string, limitMs = 60_000): Promise<{ status: number; said: string }> {
    const { connection } = this
    connection.received = ''
    const mark = `ended ${++this.#commands}`
    connection.send(`{ ${command}\n} </dev/null 2>&1; echo "${mark} $?"\n`)
    const ended = new RegExp(`^([\\s\\S]*)${mark} (\\d+)\\n$`)
    const [, said, status] = ended.exec(await connection.until((text) => ended.test(text), limitMs))!
    return { status: Number(status), said: said!.trim() }
  }

  /** Lets another program have the connection. */
  become(program: string): Connection {
    this.connection.received = ''
    this.connection.send(`exec ${program}\n`)
    return this.connection
  }
}

const asPostgres = 'setpriv --reuid=postgres --regid=postgres --init-groups'

/** By which a database is given rows and asked for them. */
const databases = {
  postgres: `${asPostgres} psql -qAtX -F ' ' -v ON_ERROR_STOP=1`,
  sqlite: "stdbuf -oL sqlite3 -batch -bail -separator ' ' /var/lib/rows/rows.db",
} as const
export type Database = keyof typeof databases
export const databaseNames = Object.keys(databases) as Database[]

/** Commits rows with numbers, one after the other over one connection; each is acknowledged before the next one is sent. */
export class Rows {
  readonly #connection: Connection
  readonly #kind: Database
  #over = false
  #writing: Promise<void> = Promise.resolve()
  acknowledged = 0
  /** Of an acknowledgement, since it was last set to 0. */
  longestMs = 0
  failed: Error | undefined

  private constructor(kind: Database, connection: Connection) {
    this.#kind = kind
    this.#connection = connection
  }

  static async begin(kind: Database, network: TestNetwork, client: string): Promise<Rows> {
    const shell = await Shell.open(network, client)
    const rows = new Rows(kind, shell.become(databases[kind]))
    rows.#writing = rows.#write().catch((error: Error) => {
      rows.failed = error
    })
    return rows
  }

  async #write(): Promise<void> {
    while (!this.#over) {
      const number = this.acknowledged + 1
      const sentAt = performance.now()
      const answer = await this.#ask(`insert into rows values (${number}); select ${number};`)
      if (answer !== `${number}`) throw new Error(`${this.#kind}: no row ${number}: ${answer}`)
      this.acknowledged = number
      this.longestMs = Math.max(this.longestMs, performance.now() - sentAt)
    }
  }

  async #ask(statement: string): Promise<string> {
    this.#connection.received = ''
    this.#connection.send(`${statement}\n`)
    return (await this.#connection.until((text) => text.endsWith('\n'), 120_000)).trim()
  }

  /** Resolves when so many rows have been acknowledged since. */
  async further(count: number): Promise<void> {
    const target = this.acknowledged + count
    while (this.acknowledged < target) {
      if (this.failed) throw this.failed
      await delay(20)
    }
  }

  /** No more rows. @returns what is wrong with those that are there, if anything */
  async end(): Promise<string | undefined> {
    this.#over = true
    await this.#writing
    if (this.failed) return this.failed.message
    const found = await this.#ask('select count(*), max(number) from rows;')
    if (this.#kind === 'sqlite') {
      const whole = await this.#ask('pragma integrity_check;')
      if (whole !== 'ok') return `sqlite: ${whole}`
    }
    const expected = `${this.acknowledged} ${this.acknowledged}`
    return found === expected ? undefined : `${this.#kind} has ${found}, acknowledged ${expected}`
  }
}

/** pgbench, outside; what it says of itself, once in a second. */
export class Pgbench {
  readonly #process: ChildProcess
  said = ''

  /** @param client the namespace */
  constructor(client: string, connections = 2) {
    const program = [
      ...[join(built, 'client/ld-linux-x86-64.so.2'), '--library-path', join(built, 'client')],
      ...[join(built, 'client/pgbench'), '--host', guestAddress, '--username', 'postgres', '--no-vacuum'],
      ...['--client', `${connections}`, '--time', '100000', '--progress', '1', 'postgres'],
    ]
    this.#process = spawn('ip', ['netns', 'exec', client, ...program], { stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [this.#process.stdout, this.#process.stderr])
      stream?.on('data', (text) => {
        this.said += text
      })
  }

  /** Ended by itself, or a connection of it did. */
  get broken(): string | undefined {
    const ended = this.#process.exitCode !== null || this.#process.signalCode !== null
    return ended || /aborted|error|lost/i.test(this.said) ? this.said.slice(-1000) : undefined
  }

  /** Transactions in a second, of those seconds in which there were any: the median. */
  get tps(): number {
    const seen = [...this.said.matchAll(/ ([\d.]+) tps/g)]
      .map(([, tps]) => Number(tps))
      .filter((tps) => tps > 0)
    return seen.sort((x, y) => x - y)[seen.length >> 1] ?? 0
  }

  async end(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return
    const ended = once(this.#process, 'exit')
    this.#process.kill('SIGKILL')
    await ended
  }
}

const sums = `select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
  (select sum(bbalance) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history),
  (select count(*) from pgbench_history)`

/** In the view of one statement, while transactions go on. @returns how many transactions there were, and what is wrong with them, if anything */
export async function balances(shell: Shell): Promise<{ transactions: number; wrong: string | undefined }> {
  const said = await shell.run(`${asPostgres} psql -qAtX -F ' ' -c "${sums}"`)
  const [accounts, tellers, branches, deltas, transactions] = said.split(' ')
  const equal = accounts === tellers && accounts === branches && accounts === deltas
  return { transactions: Number(transactions), wrong: equal ? undefined : `balances differ: ${said}` }
}

/** @throws Error with what its tool says */
export async function checkPostgres(shell: Shell): Promise<void> {
  await shell.run(
    `${asPostgres} /usr/lib/postgresql/15/bin/pg_amcheck --all --heapallindexed --no-strict-names`,
    180_000,
  )
}

/** What systemd and the kernel of the guest complain of, if anything. */
export async function complaints(shell: Shell): Promise<string[]> {
  const { said: state } = await shell.try('systemctl is-system-running')
  const failed = state === 'running' ? '' : await shell.run('systemctl --failed --plain --no-legend')
  const { said: journal } = await shell.try(
    `journalctl --no-pager -q -b | grep -iE 'I/O error|ext4-fs error|hung task|soft lockup|call trace|remount.*read-only' | tail -n 5`,
  )
  return [...(state === 'running' ? [] : [`system ${state}: ${failed}`]), ...(journal ? [journal] : [])]
}

/** By how many milliseconds a clock of the guest is behind ours at least; below 0 if it is ahead. */
export interface Clocks {
  /** Its time of day. */
  behindMs: number
  /** Its battery clock, which has whole seconds. */
  rtcBehindMs: number
}

export async function clocks(shell: Shell): Promise<Clocks> {
  const before = Date.now()
  const said = await shell.run('date +%s%3N; cat /sys/class/rtc/rtc0/since_epoch')
  const after = Date.now()
  // Read at some moment between the two.
  const behind = (ms: number) => (ms < before ? before - ms : Math.min(0, after - ms))
  const [time, rtc] = said.split('\n').map(Number)
  return { behindMs: behind(time!), rtcBehindMs: behind(rtc! * 1000) }
}
