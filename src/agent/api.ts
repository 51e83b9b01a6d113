/**
 * The HTTP API, version 1: of an agent on a unix socket of mode 0600, and over TCP for those who know the token
 * (api-listener.ts); of a guest's supervisor, for its one guest, on a socket of that kind. Requests are checked against schemas;
 * every error is `{code, message}` with the status from the error table.
 */
import fastify, { type FastifyInstance, type FastifyReply, type FastifyServerFactory } from 'fastify'
import { type Static, Type } from 'typebox'
import { asSubpageError } from '../errors.ts'
import { limits } from '../limits.ts'
import { DiskRequest, DiskShape, disksMax } from '../qemu/disk.ts'
import { NicRequest, nicsMax } from '../qemu/nic.ts'
import { pluginPartNames } from '../qemu/plugin.ts'
import { Vnc } from '../qemu/screen.ts'
import { durabilities, sendingForm } from '../replication/sending.ts'
import { EventStream } from './event-stream.ts'
import type { GuestApi } from './guest-api.ts'
import { WatchQuery } from './supervisor/memory-watch.ts'

export const RunBody = Type.Object(
  {
    name: Type.String(),
    ramBytes: Type.Integer({ minimum: 16 * 2 ** 20, multipleOf: 4096 }),
    accel: Type.Union([Type.Literal('auto'), Type.Literal('kvm'), Type.Literal('tcg')]),
    options: Type.Array(Type.String({ maxLength: 4096 }), { maxItems: 512 }),
    nics: Type.Optional(Type.Array(NicRequest, { maxItems: nicsMax })),
    /** Writable ones. */
    disks: Type.Optional(Type.Array(DiskRequest, { maxItems: disksMax })),
    /** Where its screen is shown, on each host. */
    vnc: Type.Optional(Vnc),
    /** What QEMU's plugin notes of the guest's accesses; with tcg only. */
    track: Type.Optional(Type.Array(Type.Enum(pluginPartNames), { maxItems: 8 })),
  },
  { additionalProperties: false },
)
export type RunBody = Static<typeof RunBody>

export const ProtectBody = Type.Object(
  {
    to: Type.String(),
    epochMs: Type.Number({ minimum: 1, maximum: 60_000 }),
    /** Makes the epoch automatic: the share of time that pauses may take, epochMs being the longest epoch. */
    pauseShareMax: Type.Optional(Type.Number({ minimum: 0.01, maximum: 1 })),
    suspicionMs: Type.Number({ minimum: 50, maximum: 60_000 }),
    outputs: Type.Union([Type.Literal('held'), Type.Literal('free')]),
    tracker: Type.Union([Type.Literal('auto'), Type.Literal('userfault'), Type.Literal('compare')]),
    codec: Type.Union([
      Type.Literal('page'),
      Type.Literal('line'),
      Type.Literal('xor-rle'),
      Type.Literal('masked'),
    ]),
    /** Compares guest and standby so often. */
    verifyEveryMs: Type.Optional(Type.Number({ minimum: 1000, maximum: 2 ** 31 - 1 })),
    /** Files or devices of the other host for the copies of disks, by the disk's name. */
    diskTo: Type.Optional(
      Type.Record(DiskShape.properties.name, Type.String({ pattern: '^/', maxLength: 4096 })),
    ),
    /** When the standby acknowledges a checkpoint: when its memory has it, or its disks as well. */
    durability: Type.Optional(Type.Enum([...durabilities])),
    ...sendingForm,
  },
  { additionalProperties: false },
)
export type ProtectBody = Static<typeof ProtectBody>

const FailoverBody = Type.Object({ force: Type.Boolean() }, { additionalProperties: false })
export type FailoverBody = Static<typeof FailoverBody>

export const DensityBody = Type.Object(
  {
    targetBytes: Type.Optional(Type.Integer({ minimum: 1 << 20 })),
    trustDomain: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$' })),
    recentMs: Type.Number({ minimum: 0, maximum: 86_400_000 }),
    coldMs: Type.Number({ minimum: 0, maximum: 86_400_000 }),
    budget: Type.Number({ minimum: 0.001, maximum: 1 }),
  },
  { additionalProperties: false },
)
export type DensityBody = Static<typeof DensityBody>

const RemoveQuery = Type.Object(
  { standbyToo: Type.Optional(Type.Boolean()) },
  { additionalProperties: false },
)
type RemoveQuery = Static<typeof RemoveQuery>

const UnprotectQuery = Type.Object(
  { discard: Type.Optional(Type.Boolean()) },
  { additionalProperties: false },
)
type UnprotectQuery = Static<typeof UnprotectQuery>

const Named = Type.Object({ name: Type.String() })
type Named = Static<typeof Named>

const bodyBytesMax = limits.apiBodyBytes.value
const requestMs = 10_000
/** The router says all of a path that it refuses. */
const messageLengthMax = 300

/** What stands between a request over TCP and the API. */
export interface ApiGuard {
  /** Throws unless the request may pass. */
  check(authorization: string | undefined): Promise<void>
  /** Makes the server that listens; a plain one without. */
  server?: FastifyServerFactory
}

export function buildApi(guests: GuestApi, guard?: ApiGuard): FastifyInstance {
  const api = fastify({
    forceCloseConnections: true,
    bodyLimit: bodyBytesMax,
    requestTimeout: requestMs,
    // Of the router, which knows of no handler yet: a path that is no path, or too long.
    frameworkErrors: ({ statusCode = 400, message }, _request, reply: FastifyReply) =>
      void reply
        .status(statusCode)
        .send({ code: 'BAD_ARGUMENT', message: message.slice(0, messageLengthMax) }),
    ...(guard?.server ? { serverFactory: guard.server } : {}),
  })
  if (guard) api.addHook('onRequest', async ({ headers }) => await guard.check(headers.authorization))

  api.setErrorHandler((thrown, _request, reply) => {
    // Fastify's own errors, such as a body that is not JSON or breaks the schema, carry a status below 500.
    const status = thrown instanceof Error && 'statusCode' in thrown ? Number(thrown.statusCode) : 500
    if (status < 500)
      return reply.status(status).send({ code: 'BAD_ARGUMENT', message: (thrown as Error).message })
    const error = asSubpageError(thrown)
    if (error.http === 401) reply.header('www-authenticate', 'Bearer')
    return reply.status(error.http).send({ code: error.code, message: error.message })
  })
  api.setNotFoundHandler(({ method, url }, reply) =>
    reply.status(404).send({ code: 'NOT_FOUND', message: `no ${method} ${url} in this API` }),
  )

  api.get('/v1/status', () => guests.status())
  api.get<{ Params: Named }>('/v1/guests/:name', ({ params }) => guests.guest(params.name))
  api.post<{ Body: RunBody }>('/v1/guests', { schema: { body: RunBody } }, ({ body }) => guests.run(body))
  api.delete<{ Params: Named; Querystring: RemoveQuery }>(
    '/v1/guests/:name',
    { schema: { querystring: RemoveQuery } },
    ({ params, query }) => guests.remove(params.name, query.standbyToo),
  )
  api.post<{ Params: Named; Body: ProtectBody }>(
    '/v1/guests/:name/protect',
    { schema: { body: ProtectBody } },
    ({ params, body }) => guests.protect(params.name, body),
  )
  api.post<{ Params: Named; Querystring: UnprotectQuery }>(
    '/v1/guests/:name/unprotect',
    { schema: { querystring: UnprotectQuery } },
    ({ params, query }) => guests.unprotect(params.name, query.discard),
  )
  api.post<{ Params: Named; Body: FailoverBody }>(
    '/v1/guests/:name/failover',
    { schema: { body: FailoverBody } },
    ({ params, body }) => guests.failover(params.name, body.force),
  )
  api.post<{ Params: Named }>('/v1/guests/:name/switchover', ({ params }) => guests.switchover(params.name))
  api.get<{ Params: Named }>('/v1/guests/:name/screenshot', ({ params }) => guests.screenshot(params.name))
  api.post<{ Params: Named }>('/v1/guests/:name/verify', ({ params }) => guests.verify(params.name))

  api.get('/v1/density', () => guests.density())
  api.put<{ Params: Named; Body: DensityBody }>(
    '/v1/guests/:name/density',
    { schema: { body: DensityBody } },
    ({ params, body }) => guests.densityOn(params.name, body),
  )
  api.delete<{ Params: Named }>('/v1/guests/:name/density', ({ params }) => guests.densityOff(params.name))

  api.get<{ Params: Named; Querystring: WatchQuery }>(
    '/v1/guests/:name/working-set',
    { schema: { querystring: WatchQuery } },
    async ({ params, query }, reply) => {
      // Before the answer begins: what is refused is an error of its own.
      let stream: EventStream | undefined
      const stop = await guests.watch(params.name, query, {
        sample: (sample) => stream?.send(sample),
        failed: ({ code, message }) => {
          stream?.send({ code, message })
          void stream?.end()
        },
      })
      stream = new EventStream(reply, stop)
    },
  )

  api.get('/v1/events', () => guests.events())
  api.get('/v1/events/stream', (_request, reply) => {
    let stop: (() => void) | undefined
    const stream = new EventStream(reply, () => stop?.())
    stop = guests.follow((event) => stream.send(event))
  })
  return api
}
