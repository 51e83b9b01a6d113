/**
 * The operations of the API: what each is for, what it answers, and the errors that are its own. An operation has the name of the client's
 * method (client.ts). docs/openapi.json is made of this table and of the schemas of requests (api.ts).
 */
import { type TSchema, Type } from '#typebox'
import { type ErrorCode, errorTable } from '../errors.ts'
import { answers } from './api-answers.ts'

interface Operation {
  tag: 'host' | 'guests' | 'density' | 'dashboard'
  summary: string
  answer: TSchema
  /** What the answer is, when it is not a value in JSON: events that go on, each a value, or a page of text. */
  form?: 'text/event-stream' | 'text/plain'
  errors: readonly ErrorCode[]
}

/** Whatever is asked of one guest. */
const ofGuest = ['GUEST_UNKNOWN', 'SUPERVISOR_FAILED', 'AGENT_UNREACHABLE'] as const
const ofRunning = [...ofGuest, 'GUEST_HUNG', 'GUEST_DIED', 'STANDBY_NOT_READY'] as const
const ofPair = ['PEER_UNREACHABLE', 'PEER_MISMATCH', 'ARBITER_UNREACHABLE', 'HELD_ELSEWHERE'] as const
const ofStart = ['QEMU_MISSING', 'QEMU_FAILED', 'GUEST_UNPROTECTABLE', 'NO_SPACE', 'GUEST_EXISTS'] as const

const table = {
  status: {
    ...{ tag: 'host', summary: 'The host and all its guests', answer: answers.status, errors: [] },
  },
  metrics: {
    ...{ tag: 'host', summary: 'Every figure of status for Prometheus (metrics.md)', answer: Type.String() },
    ...{ form: 'text/plain', errors: [] },
  },
  recentEvents: {
    ...{ tag: 'host', summary: 'What has happened, the oldest first', answer: answers.events, errors: [] },
  },
  events: {
    ...{ tag: 'host', summary: 'What has happened, then each thing that does', answer: answers.event },
    ...{ form: 'text/event-stream', errors: [] },
  },
  document: {
    ...{ tag: 'host', summary: 'This document', answer: answers.document, errors: [] },
  },
  guest: {
    ...{ tag: 'guests', summary: 'One guest', answer: answers.guest, errors: ofGuest },
  },
  run: {
    ...{ tag: 'guests', summary: 'Starts a guest', answer: answers.guest },
    errors: [
      ...ofStart,
      ...['SUPERVISOR_FAILED', 'DISK_UNUSABLE', 'FIRMWARE_MISSING', 'NETWORK_FAILED', 'LAB_MISSING'],
      'SECRET_EXPOSED',
    ] as ErrorCode[],
  },
  adopt: {
    ...{
      tag: 'guests',
      summary: 'Takes up a domain of libvirt that runs on this host',
      answer: answers.guest,
    },
    errors: [
      ...ofGuest,
      ...ofStart,
      'LIBVIRT_MISSING',
      'LIBVIRT_UNREACHABLE',
      'LIBVIRT_REFUSED',
      'GUEST_DIED',
    ],
  },
  remove: {
    ...{ tag: 'guests', summary: 'Ends a guest, and removes what it left', answer: answers.removed },
    errors: [...ofGuest, 'HELD_ELSEWHERE', 'GUEST_EXISTS'],
  },
  protect: {
    ...{ tag: 'guests', summary: 'Keeps a standby of a guest on another host', answer: answers.guest },
    errors: [
      ...ofRunning,
      ...ofPair,
      ...['ALREADY_PROTECTED', 'GUEST_UNPROTECTABLE', 'TRACKER_UNAVAILABLE', 'NO_SPACE'],
      ...['AUTH_REFUSED', 'TLS_REQUIRED', 'ARBITER_NOT_SHARED', 'DISK_UNUSABLE', 'DISK_FAILED'],
      ...['LIBVIRT_REFUSED', 'LIBVIRT_UNREACHABLE'],
    ] as ErrorCode[],
  },
  unprotect: {
    ...{ tag: 'guests', summary: 'Gives up the standby of a guest', answer: answers.unprotected },
    errors: [...ofRunning, 'NOT_PROTECTED'],
  },
  failover: {
    ...{ tag: 'guests', summary: 'The standby of this host takes over', answer: answers.outcome },
    errors: [...ofGuest, ...ofPair, 'STANDBY_NOT_READY', 'GUEST_HUNG', 'QEMU_FAILED'],
  },
  switchover: {
    ...{ tag: 'guests', summary: 'Moves a guest to its standby, without loss', answer: answers.switchedOver },
    errors: [...ofRunning, ...ofPair, 'NOT_PROTECTED', 'CANCELLED'],
  },
  verify: {
    ...{ tag: 'guests', summary: 'Compares a guest with its standby', answer: answers.verified },
    errors: [...ofRunning, 'NOT_PROTECTED', 'IMAGE_DIFFERS', 'PEER_UNREACHABLE', 'CANCELLED'],
  },
  cancel: {
    ...{ tag: 'guests', summary: 'Ends what somebody waits for: `operation` in status' },
    ...{ answer: answers.cancelled, errors: [...ofRunning, 'NOT_CANCELLABLE'] },
  },
  screenshot: {
    ...{ tag: 'guests', summary: "What is on a guest's screen", answer: answers.screenshot },
    errors: [...ofRunning, 'QEMU_FAILED', 'NO_SPACE'],
  },
  startWatch: {
    ...{ tag: 'guests', summary: 'The working set of a guest, interval by interval', answer: answers.sample },
    ...{ form: 'text/event-stream', errors: [...ofRunning, 'TRACKER_UNAVAILABLE'] },
  },
  workingSets: {
    ...{ tag: 'guests', summary: 'What watching its memory has said in the last hour' },
    ...{ answer: answers.workingSets, errors: ofRunning },
  },
  memoryMap: {
    ...{ tag: 'guests', summary: 'Where the memory of a guest is and how hot, in a thousand cells at most' },
    ...{ answer: answers.memoryMap, errors: [...ofRunning, 'KEEPER_FAILED'] },
  },
  density: {
    ...{ tag: 'density', summary: 'Where the pages of dense guests are', answer: answers.hostDensity },
    errors: ['SUPERVISOR_FAILED', 'KEEPER_FAILED', 'AGENT_UNREACHABLE'],
  },
  densityOn: {
    ...{ tag: 'density', summary: 'Holds the memory of a guest densely', answer: answers.guestDensity },
    errors: [...ofRunning, 'KEEPER_FAILED', 'TRACKER_UNAVAILABLE', 'NO_SPACE', 'ALREADY_PROTECTED'],
  },
  densityOff: {
    ...{ tag: 'density', summary: 'Brings all its memory back', answer: answers.whole },
    errors: [...ofRunning, 'KEEPER_FAILED', 'NO_SPACE', 'STORE_DAMAGED'],
  },
  session: {
    ...{
      tag: 'dashboard',
      summary: 'A session, for the one-time token of an address',
      answer: answers.session,
    },
    errors: [],
  },
  history: {
    ...{ tag: 'dashboard', summary: 'The last hour of a guest', answer: answers.history, errors: ofGuest },
  },
  live: {
    ...{ tag: 'dashboard', summary: 'Status, each second', answer: answers.live },
    ...{ form: 'text/event-stream', errors: [] },
  },
  dashboard: {
    ...{ tag: 'dashboard', summary: "On the agent's socket alone: an address for one browser" },
    ...{ answer: answers.dashboard, errors: ['ADDRESS_IN_USE'] },
  },
} as const satisfies Record<string, Operation>

export type OperationName = keyof typeof table

/** What any request can be refused with. */
const always: readonly ErrorCode[] = ['BAD_ARGUMENT', 'AUTH_REFUSED', 'READ_ONLY', 'INTERNAL']

/** For fastify's routes: what an operation answers, by HTTP status. */
export function schemaOf(name: OperationName) {
  const { tag, summary, answer, form, errors }: Operation = table[name]
  const good = form === undefined ? answer : { content: { [form]: { schema: answer } } }
  return {
    operationId: name,
    tags: [tag],
    summary,
    response: { 200: { description: 'done', ...good }, ...refusals([...always, ...errors]) },
  }
}

function refusals(codes: readonly ErrorCode[]) {
  const byStatus = new Map<number, ErrorCode[]>()
  for (const code of [...new Set(codes)].sort())
    byStatus.set(errorTable[code].http, [...(byStatus.get(errorTable[code].http) ?? []), code])
  const known = [...byStatus].map(([status, of]) => {
    const schema = Type.Object({ code: Type.Enum(of), message: Type.String() })
    return [status, { description: of.map(meaningOf).join('\n\n'), ...inJson(schema) }] as const
  })
  const rest = { description: 'Another code of [errors.md](errors.md).', ...inJson(answers.refusal) }
  return { ...Object.fromEntries(known), default: rest }
}

const inJson = (schema: TSchema) => ({ content: { 'application/json': { schema } } })

const meaningOf = (code: ErrorCode) =>
  `[${code}](errors.md#${code.toLowerCase()}): ${errorTable[code].meaning}`
