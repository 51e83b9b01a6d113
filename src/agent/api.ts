/**
 * The agent's HTTP API, version 1, on a unix socket of mode 0600. Requests are checked against schemas; every error
 * is `{code, message}` with the status from the error table.
 */
import fastify, { type FastifyInstance } from 'fastify'
import { type Static, Type } from 'typebox'
import { asSubpageError, SubpageError } from '../errors.ts'
import type { Agent } from './agent.ts'
import type { HostEvent } from './event-log.ts'
import { guestStatus, hostStatus } from './status.ts'

export const RunBody = Type.Object(
  {
    name: Type.String(),
    ramBytes: Type.Integer({ minimum: 16 * 2 ** 20, multipleOf: 4096 }),
    accel: Type.Union([Type.Literal('auto'), Type.Literal('kvm'), Type.Literal('tcg')]),
    options: Type.Array(Type.String()),
  },
  { additionalProperties: false },
)
export type RunBody = Static<typeof RunBody>

export const ProtectBody = Type.Object(
  {
    to: Type.String(),
    epochMs: Type.Number({ minimum: 1, maximum: 60_000 }),
    tracker: Type.Union([Type.Literal('auto'), Type.Literal('userfault'), Type.Literal('compare')]),
    codec: Type.Union([
      Type.Literal('page'),
      Type.Literal('line'),
      Type.Literal('xor-rle'),
      Type.Literal('masked'),
    ]),
  },
  { additionalProperties: false },
)
export type ProtectBody = Static<typeof ProtectBody>

const Named = Type.Object({ name: Type.String() })
type Named = Static<typeof Named>

export function buildApi(agent: Agent): FastifyInstance {
  const api = fastify({ forceCloseConnections: true })

  api.setErrorHandler((thrown, _request, reply) => {
    const invalid = thrown instanceof Error && 'validation' in thrown
    const error = invalid ? new SubpageError('BAD_ARGUMENT', thrown.message) : asSubpageError(thrown)
    return reply.status(error.http).send({ code: error.code, message: error.message })
  })

  api.get('/v1/status', async () => hostStatus(agent))
  api.get<{ Params: Named }>('/v1/guests/:name', async ({ params }) => guestStatus(agent.find(params.name)))
  api.post<{ Body: RunBody }>('/v1/guests', { schema: { body: RunBody } }, async ({ body }) =>
    guestStatus(await agent.run(body)),
  )
  api.delete<{ Params: Named }>('/v1/guests/:name', async ({ params }) => {
    await agent.remove(params.name)
    return { removed: params.name }
  })
  api.post<{ Params: Named; Body: ProtectBody }>(
    '/v1/guests/:name/protect',
    { schema: { body: ProtectBody } },
    async ({ params, body }) => {
      await agent.protect(params.name, body)
      return guestStatus(agent.find(params.name))
    },
  )
  api.post<{ Params: Named }>('/v1/guests/:name/unprotect', async ({ params }) => {
    await agent.unprotect(params.name)
    return guestStatus(agent.find(params.name))
  })
  api.post<{ Params: Named }>('/v1/guests/:name/failover', async ({ params }) => agent.failover(params.name))
  api.post<{ Params: Named }>('/v1/guests/:name/verify', async ({ params }) => agent.verify(params.name))

  api.get('/v1/events', async () => agent.events.recent())
  api.get('/v1/events/stream', (_request, reply) => {
    reply.hijack()
    reply.raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
    const send = (event: HostEvent) => reply.raw.write(`data: ${JSON.stringify(event)}\n\n`)
    for (const event of agent.events.recent()) send(event)
    agent.events.on('event', send)
    reply.raw.on('close', () => agent.events.off('event', send))
  })
  return api
}
