/**
 * The HTTP API, version 1: of an agent on a unix socket of mode 0600, and over TCP for those who know the token
 * (api-listener.ts); of a guest's supervisor, for its one guest, on a socket of that kind. Requests are checked against schemas;
 * every error is `{code, message}` with the status from the error table.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyServerFactory } from 'fastify'
import { type Static, Type } from '#typebox'
import { asSubpageError } from '../errors.ts'
import { limits } from '../limits.ts'
import { packageRoot } from '../package-root.ts'
import { DiskRequest } from '../qemu/disk.ts'
import { FirmwareRequest } from '../qemu/firmware.ts'
import { DensitySettings } from '../qemu/guest-record.ts'
import { NicRequest } from '../qemu/nic.ts'
import { pluginPartNames } from '../qemu/plugin.ts'
import { Vnc } from '../qemu/screen.ts'
import { ProtectBody, settingsOf } from '../replication/protection-settings.ts'
import { sharedSchemas } from './api-answers.ts'
import { schemaOf } from './api-operations.ts'
import { EventStream } from './event-stream.ts'
import type { GuestApi } from './guest-api.ts'
import { WatchQuery } from './supervisor/memory-watch.ts'

export const RunBody = Type.Object(
  {
    name: Type.String(),
    ramBytes: Type.Integer({ minimum: 16 * 2 ** 20, multipleOf: 4096 }),
    accel: Type.Union([Type.Literal('auto'), Type.Literal('kvm'), Type.Literal('tcg')]),
    options: Type.Array(Type.String({ maxLength: 4096 }), { maxItems: 512 }),
    nics: Type.Optional(Type.Array(NicRequest, { maxItems: limits.networkCards.value })),
    /** Writable ones. */
    disks: Type.Optional(Type.Array(DiskRequest, { maxItems: limits.disks.value })),
    /** UEFI; without it SeaBIOS. */
    firmware: Type.Optional(FirmwareRequest),
    /** Where its screen is shown, on each host. */
    vnc: Type.Optional(Vnc),
    /** What QEMU's plugin notes of the guest's accesses; with tcg only. */
    track: Type.Optional(Type.Array(Type.Enum(pluginPartNames), { maxItems: 8 })),
  },
  { additionalProperties: false },
)
export type RunBody = Static<typeof RunBody>

const FailoverBody = Type.Object({ force: Type.Boolean() }, { additionalProperties: false })
export type FailoverBody = Static<typeof FailoverBody>

/** Answered on the agent's socket alone (serve.ts). */
export const DashboardBody = Type.Object({ readOnly: Type.Boolean() }, { additionalProperties: false })
export type DashboardBody = Static<typeof DashboardBody>

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
  /** Throws unless the request may pass. @param path without its query */
  check(authorization: string | undefined, method: string, path: string): Promise<void>
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
  if (guard)
    api.addHook('onRequest', async ({ headers, method, url }) => {
      await guard.check(headers.authorization, method, url.split('?')[0] ?? '')
    })

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
  addRoutes(api, guests)
  return api
}

/** What an agent answers, and a supervisor. The schemas of answers describe them: they are written as they are. */
export function addRoutes(api: FastifyInstance, guests: GuestApi): void {
  for (const schema of sharedSchemas) api.addSchema(schema)
  api.setSerializerCompiler(() => JSON.stringify)
  api.get('/v1/status', { schema: schemaOf('status') }, () => guests.status())
  api.get<{ Params: Named }>('/v1/guests/:name', { schema: schemaOf('guest') }, ({ params }) =>
    guests.guest(params.name),
  )
  api.post<{ Body: RunBody }>('/v1/guests', { schema: { ...schemaOf('run'), body: RunBody } }, ({ body }) =>
    guests.run(body),
  )
  api.delete<{ Params: Named; Querystring: RemoveQuery }>(
    '/v1/guests/:name',
    { schema: { ...schemaOf('remove'), querystring: RemoveQuery } },
    ({ params, query }) => guests.remove(params.name, query.standbyToo),
  )
  api.post<{ Params: Named; Body: ProtectBody }>(
    '/v1/guests/:name/protect',
    { schema: { ...schemaOf('protect'), body: ProtectBody } },
    ({ params, body }) => guests.protect(params.name, settingsOf(body)),
  )
  api.post<{ Params: Named }>('/v1/guests/:name/adopt', { schema: schemaOf('adopt') }, ({ params }) =>
    guests.adopt(params.name),
  )
  api.post<{ Params: Named; Querystring: UnprotectQuery }>(
    '/v1/guests/:name/unprotect',
    { schema: { ...schemaOf('unprotect'), querystring: UnprotectQuery } },
    ({ params, query }) => guests.unprotect(params.name, query.discard),
  )
  api.post<{ Params: Named; Body: FailoverBody }>(
    '/v1/guests/:name/failover',
    { schema: { ...schemaOf('failover'), body: FailoverBody } },
    ({ params, body }) => guests.failover(params.name, body.force),
  )
  api.post<{ Params: Named }>(
    '/v1/guests/:name/switchover',
    { schema: schemaOf('switchover') },
    ({ params }) => guests.switchover(params.name),
  )
  api.get<{ Params: Named }>(
    '/v1/guests/:name/screenshot',
    { schema: schemaOf('screenshot') },
    ({ params }) => guests.screenshot(params.name),
  )
  api.post<{ Params: Named }>('/v1/guests/:name/verify', { schema: schemaOf('verify') }, ({ params }) =>
    guests.verify(params.name),
  )

  api.post<{ Params: Named }>('/v1/guests/:name/cancel', { schema: schemaOf('cancel') }, ({ params }) =>
    guests.cancel(params.name),
  )

  api.get('/v1/density', { schema: schemaOf('density') }, () => guests.density())
  api.put<{ Params: Named; Body: DensitySettings }>(
    '/v1/guests/:name/density',
    { schema: { ...schemaOf('densityOn'), body: DensitySettings } },
    ({ params, body }) => guests.densityOn(params.name, body),
  )
  api.delete<{ Params: Named }>(
    '/v1/guests/:name/density',
    { schema: schemaOf('densityOff') },
    ({ params }) => guests.densityOff(params.name),
  )

  api.get<{ Params: Named; Querystring: WatchQuery }>(
    '/v1/guests/:name/working-set',
    { schema: { ...schemaOf('startWatch'), querystring: WatchQuery } },
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

  api.get<{ Params: Named }>(
    '/v1/guests/:name/working-set/history',
    { schema: schemaOf('workingSets') },
    ({ params }) => guests.workingSets(params.name),
  )
  api.get<{ Params: Named }>('/v1/guests/:name/memory-map', { schema: schemaOf('memoryMap') }, ({ params }) =>
    guests.memoryMap(params.name),
  )

  api.get('/v1/events', { schema: schemaOf('recentEvents') }, () => guests.events())
  api.get('/v1/events/stream', { schema: schemaOf('events') }, (_request, reply) => {
    let stop: (() => void) | undefined
    const stream = new EventStream(reply, () => stop?.())
    stop = guests.follow((event) => stream.send(event))
  })
  api.get('/v1/openapi.json', { schema: schemaOf('document') }, async (_request, reply) =>
    reply.type('application/json').send(await readFile(documentPath)),
  )
}

const documentPath = join(packageRoot, 'docs/openapi.json')
