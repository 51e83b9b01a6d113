/**
 * The log of an agent or a supervisor: a line of JSON for each event, the same as the API's, and at `debug` for each request that it was
 * asked. In a journal each line begins with its priority, as sd-daemon(3) has it. Nothing that was sent with a request, and no path's
 * query, is ever in it: there may be secrets in those.
 */
import { fstatSync, ftruncateSync, writeSync } from 'node:fs'
import type { FastifyInstance } from 'fastify'
import { type Logger, pino } from 'pino'
import { takeMessage } from '../environment.ts'
import { SubpageError } from '../errors.ts'
import { limits } from '../limits.ts'
import type { HostEvent } from './event-log.ts'

export const logLevels = ['error', 'warn', 'info', 'debug'] as const
export type LogLevel = (typeof logLevels)[number]
export type Log = Logger

/** What an operator is to look at is a warning. */
const levelOfKind: Record<HostEvent['kind'], LogLevel> = {
  guest: 'info',
  protection: 'info',
  density: 'info',
  failover: 'warn',
  refused: 'warn',
  arbiter: 'warn',
}

/** Of syslog(3), by the numbers of pino. */
const priorities: Record<number, number> = { 20: 7, 30: 6, 40: 4, 50: 3, 60: 2 }

export interface LogOptions {
  level: LogLevel
  /** What every line says of who writes it. */
  fields: Record<string, string | number>
  write: (text: string) => unknown
  journal: boolean
}

export function createLog({ level, fields, write, journal }: LogOptions): Log {
  const sink = {
    // Tells pino to say before each line of what level it is.
    [Symbol.for('pino.metadata')]: true,
    lastLevel: 30,
    write(line: string) {
      write(journal ? `<${priorities[this.lastLevel] ?? 6}>${line}` : line)
    },
  }
  const formatters = { level: (label: string) => ({ level: label }) }
  return pino({ level, base: fields, timestamp: false, messageKey: 'message', formatters }, sink)
}

/** On standard error; undefined at a terminal: there is text for people instead. */
export function agentLog(level: LogLevel): Log | undefined {
  // Taken in any case: programs that we start write elsewhere.
  const journal = isJournal()
  if (process.stderr.isTTY) return undefined
  const fields = { program: 'agent', process: process.pid }
  return createLog({ level, fields, write: (text) => process.stderr.write(text), journal })
}

/** The wall clock, for people. */
export const now = () => ({ time: new Date().toISOString() })

const levelOf = ({ kind }: HostEvent): LogLevel => levelOfKind[kind]

/** Whether a log of this level has it. */
export const isLogged = (event: HostEvent, level: LogLevel): boolean =>
  logLevels.indexOf(levelOf(event)) <= logLevels.indexOf(level)

/** @param since what is older happened before this process, which has been told of it: a supervisor keeps what nobody heard */
export function logEvent(log: Log, event: HostEvent, since?: string): void {
  const { time, guest, kind, text } = event
  const replayed = since !== undefined && time < since
  log[levelOf(event)]({ time, ...(guest !== '' && { guest }), kind, ...(replayed && { replayed }) }, text)
}

/** Each answer, at `debug`; what should not have happened, at `error`. */
export function logRequests(api: FastifyInstance, log: Log): void {
  api.addHook('onResponse', async ({ method, url }, { statusCode: status, elapsedTime }) => {
    const path = url.split('?')[0]
    log.debug(
      { ...now(), kind: 'request', method, path, status, ms: Math.round(elapsedTime) },
      `${method} ${path}`,
    )
  })
  api.addHook('onError', async ({ method, url }, _reply, error) => {
    const { code, message, stack } = error
    const foreseen =
      error instanceof SubpageError ? code !== 'INTERNAL' : Number(error.statusCode ?? 500) < 500
    if (!foreseen)
      log.error({ ...now(), kind: 'defect', method, path: url.split('?')[0], stack }, `INTERNAL: ${message}`)
  })
}

/** Whether standard error is the journal's: the variable names its device and inode, which programs that we start inherit. */
function isJournal(fd = 2, stream = takeMessage('JOURNAL_STREAM')): boolean {
  const { dev, ino } = fstatSync(fd, { bigint: true })
  return stream === `${dev}:${ino}`
}

/** To a file that is ours alone, opened to append, which begins anew rather than grow beyond its limit. */
export function writeBounded(fd: number, text: string): void {
  try {
    if (fstatSync(fd).size + text.length > limits.supervisorLogBytes.value) ftruncateSync(fd)
    writeSync(fd, text)
  } catch {
    // A full file system must not end the guest's protection; the agent has the events.
  }
}

/** What is in such a file beside the log: what Node.js says of a process that it ends. */
export const withoutLog = (text: string): string =>
  text
    .split('\n')
    .filter((line) => !line.startsWith('{"level":'))
    .join('\n')
