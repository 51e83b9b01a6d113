/** GET /metrics of an agent. A supervisor has no such route: its figures come with the agent's, and prom-client would cost each some MiB. */
import type { FastifyInstance } from 'fastify'
import { schemaOf } from './api-operations.ts'
import type { GuestApi } from './guest-api.ts'
import { metricsPage } from './metrics.ts'

export function addMetrics(api: FastifyInstance, guests: Pick<GuestApi, 'status'>): void {
  api.get('/metrics', { schema: schemaOf('metrics') }, async (_request, reply) => {
    const { type, text } = await metricsPage(await guests.status())
    return reply.type(type).send(text)
  })
}
