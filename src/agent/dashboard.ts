/**
 * The dashboard of a host: the files that Vite made of web/, and what the page asks beside the API. The files hold nothing of this
 * host; a page that wants more shows a session's token, which it gets for the one-time token in its address (access.ts).
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import fastifyStatic from '@fastify/static'
import type { FastifyInstance } from 'fastify'
import { packageRoot } from '../package-root.ts'
import type { Access } from './access.ts'
import type { Agent } from './agent.ts'
import { DashboardBody } from './api.ts'
import { schemaOf } from './api-operations.ts'
import { EventStream } from './event-stream.ts'
import { pointColumns } from './guest-history.ts'

const files = join(packageRoot, 'build/web')

/** Nothing from elsewhere, nothing inline, in nobody's frame. */
const headers = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
}

/** What anybody may have: the same for all agents of a release. */
export const isPublic = (method: string, path: string) =>
  (method === 'GET' && (path === '/' || path.startsWith('/assets/') || path === '/icon.svg')) ||
  // It asks for its own token.
  (method === 'POST' && path === '/v1/session')

export async function addDashboard(api: FastifyInstance, agent: Agent, access: Access): Promise<void> {
  addDashboardRoutes(api, agent, access)
  if (!existsSync(files)) return
  await api.register(fastifyStatic, {
    root: files,
    index: 'index.html',
    setHeaders: (reply) => {
      for (const [name, value] of Object.entries(headers)) reply.setHeader(name, value)
    },
  })
}

/** What the page asks. */
export function addDashboardRoutes(
  api: FastifyInstance,
  agent: Pick<Agent, 'historyOf' | 'live'>,
  access: Access,
): void {
  api.post('/v1/session', { schema: schemaOf('session') }, ({ headers: { authorization } }) =>
    access.enter(authorization),
  )
  api.get<{ Params: { name: string } }>(
    '/v1/guests/:name/history',
    { schema: schemaOf('history') },
    async ({ params }) => ({
      columns: pointColumns,
      points: agent.historyOf(params.name),
    }),
  )
  api.get('/v1/status/stream', { schema: schemaOf('live') }, (_request, reply) => {
    let stop: (() => void) | undefined
    const stream = new EventStream(reply, () => stop?.())
    stop = agent.live.follow((message) => stream.sendIfRead(message))
  })
}

/** On the socket of an agent: whoever may open that may do everything, and invite a browser. */
export function addInvitations(
  api: FastifyInstance,
  listening: () => Promise<{ access: Access; origin: string }>,
): void {
  api.post<{ Body: DashboardBody }>(
    '/v1/dashboard',
    { schema: { ...schemaOf('dashboard'), body: DashboardBody } },
    async ({ body }) => {
      const { access, origin } = await listening()
      return { url: `${origin}/#${access.invite(body.readOnly ? 'read' : 'operate')}` }
    },
  )
}
