/**
 * The agent's HTTP API, version 1: on a unix socket of mode 0600, and over TCP for those who know the token
 * (api-listener.ts). Requests are checked against schemas; every error is `{code, message}` with the status from the
 * error table.
 */
import fastify, { type FastifyInstance, type FastifyReply, type FastifyServerFactory } from 'fastify'
import { type Static, Type } from 'typebox'
import { asSubpageError } from '../errors.ts'
import { limits } from '../limits.ts'
import { NicRequest, nicsMax } from '../qemu/nic.ts'
import { sendingForm } from '../replication/sending.ts'
import { pluginPartNames } from '../tracking/plugin/layout.ts'
import type { Agent } from './agent.ts'
import { densityStatus, guestDensity } from './density-status.ts'
import type { HostEvent } from './event-log.ts'
import { EventStream } from './event-stream.ts'
import { aliveOf, runningOf } from './hosted-guest.ts'
import { WatchQuery } from './memory-watch.ts'
import { guestStatus, hostStatus } from './status.ts'

export const RunBody = Type.Object(
  {
    name: Type.String(),
    ramBytes: Type.Integer({ minimum: 16 * 2 ** 20, multipleOf: 4096 }),
    accel: Type.Union([Type.Literal('auto'), Type.Literal('kvm'), Type.Literal('tcg')]),
    options: Type.Array(Type.String({ maxLength: 4096 }), { maxItems: 512 }),
    nics: Type.Optional(Type.Array(NicRequest, { maxItems: nicsMax })),
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
    ...sendingForm,
  },
  { additionalProperties: false },
)
export type ProtectBody = Static<typeof ProtectBody>

export const FailoverBody = Type.Object({ force: Type.Boolean() }, { additionalProperties: false })
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

export function buildApi(agent: Agent, guard?: ApiGuard): FastifyInstance {
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

  api.get('/v1/status', async () => hostStatus(agent))
  api.get<{ Params: Named }>('/v1/guests/:name', async ({ params }) =>
    guestStatus(agent.find(params.name), agent),
  )
  api.post<{ Body: RunBody }>('/v1/guests', { schema: { body: RunBody } }, async ({ body }) =>
    guestStatus(await agent.run(body), agent),
  )
  api.delete<{ Params: Named }>('/v1/guests/:name', async ({ params }) => {
    const note = await agent.remove(params.name)
    return { removed: params.name, ...(note && { note }) }
  })
  api.post<{ Params: Named; Body: ProtectBody }>(
    '/v1/guests/:name/protect',
    { schema: { body: ProtectBody } },
    async ({ params, body }) => {
      await agent.protect(params.name, body)
      return guestStatus(agent.find(params.name), agent)
    },
  )
  api.post<{ Params: Named }>('/v1/guests/:name/unprotect', async ({ params }) => {
    await agent.unprotect(params.name)
    return guestStatus(agent.find(params.name), agent)
  })
  api.post<{ Params: Named; Body: FailoverBody }>(
    '/v1/guests/:name/failover',
    { schema: { body: FailoverBody } },
    async ({ params, body }) => agent.failover(params.name, body.force),
  )
  api.post<{ Params: Named }>('/v1/guests/:name/switchover', async ({ params }) => {
    await agent.switchover(params.name)
    return { switchedOver: params.name }
  })
  api.post<{ Params: Named }>('/v1/guests/:name/verify', async ({ params }) => agent.verify(params.name))

  api.get('/v1/density', async () => await densityStatus(agent))
  api.put<{ Params: Named; Body: DensityBody }>(
    '/v1/guests/:name/density',
    { schema: { body: DensityBody } },
    async ({ params, body }) => {
      await agent.host.density.enable(aliveOf(agent.find(params.name)), body)
      return await guestDensity(agent, params.name)
    },
  )
  api.delete<{ Params: Named }>('/v1/guests/:name/density', async ({ params }) => {
    await agent.host.density.disable(aliveOf(agent.find(params.name)))
    return { whole: params.name }
  })

  api.get<{ Params: Named; Querystring: WatchQuery }>(
    '/v1/guests/:name/working-set',
    { schema: { querystring: WatchQuery } },
    ({ params, query }, reply) => {
      // Before the answer begins: what is refused is an error of its own.
      let stream: EventStream | undefined
      const stop = runningOf(agent.find(params.name), 'wss').memoryWatch.listen(
        {
          sample: (sample) => stream?.send(sample),
          failed: ({ code, message }) => {
            stream?.send({ code, message })
            stream?.end()
          },
        },
        query,
      )
      stream = new EventStream(reply, stop)
    },
  )

  api.get('/v1/events', async () => agent.events.recent())
  api.get('/v1/events/stream', (_request, reply) => {
    const send = (event: HostEvent) => stream.send(event)
    const stream = new EventStream(reply, () => agent.events.off('event', send))
    for (const event of agent.events.recent()) send(event)
    agent.events.on('event', send)
  })
  return api
}
