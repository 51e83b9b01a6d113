/** docs/openapi.json: the API of an agent, from the schemas of its routes (src/agent/api.ts, api-operations.ts). */
import swagger from '@fastify/swagger'
import fastify from 'fastify'
import { addRoutes } from '../../src/agent/api.ts'
import { needsOf } from '../../src/agent/api-listener.ts'
import { addDashboardRoutes, addInvitations, isPublic } from '../../src/agent/dashboard.ts'
import { addMetrics } from '../../src/agent/metrics-route.ts'
import { release } from '../../src/release.ts'

const description = `What an agent answers on the unix socket in its state directory, without a token, and over TCP for those who show one
(security.md). Sizes are bytes, times milliseconds unless their name says otherwise. Every error is {code, message}; client.md
shows the client. Within version 1 members may be added to answers; a client passes over those that it does not know.`

/** No request comes as far as an agent. */
const nobody = {} as never

async function document(): Promise<string> {
  const api = fastify()
  await api.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'subpage agent', version: release, description, license: { name: 'MIT' } },
      tags: [
        { name: 'host', description: 'the host and its agent' },
        { name: 'guests', description: 'guests, their protection and their standbys' },
        { name: 'density', description: 'memory held densely (density.md)' },
        { name: 'dashboard', description: 'what the page of the dashboard asks' },
      ],
      components: {
        securitySchemes: {
          operate: { type: 'http', scheme: 'bearer', description: 'the token of --api-token-file' },
          read: { type: 'http', scheme: 'bearer', description: 'the token of --api-read-token-file' },
        },
      },
    },
    refResolver: { buildLocalReference: (schema) => String(schema.$id) },
    transform: ({ schema, url, route }) => ({
      schema: { ...schema, security: rights(route.method, url) },
      url,
    }),
  })
  addRoutes(api, nobody)
  addMetrics(api, nobody)
  addDashboardRoutes(api, nobody, nobody)
  addInvitations(api, nobody)
  await api.ready()
  return `${JSON.stringify(api.swagger(), null, 1)}\n`
}

/** One of these is enough. */
function rights(method: string | string[], path: string): { [scheme: string]: never[] }[] {
  if (isPublic(String(method), path)) return []
  return needsOf(String(method), path) === 'read' ? [{ operate: [] }, { read: [] }] : [{ operate: [] }]
}

const made = await document()

export const renderOpenApi = (): string => made
