/** What the API answers to requests that it does not know: an error of its form with the right code, never a page of another. */
import { afterAll, expect, test } from 'vitest'
import type { Agent } from '../../src/agent/agent.ts'
import { buildApi } from '../../src/agent/api.ts'
import { EventLog } from '../../src/agent/event-log.ts'

// No request comes as far as the agent.
const api = buildApi({ events: new EventLog() } as unknown as Agent)
afterAll(() => api.close())

test.each([
  ['GET', '/'],
  ['GET', '/v1'],
  ['GET', '/v2/status'],
  ['GET', '/v1/guests/web/unprotect'],
  ['POST', '/v1/status'],
  ['DELETE', '/v1/guests'],
  ['PUT', '/v1/guests/web'],
  ['PATCH', '/v1/guests/web'],
  ['GET', '/v1/status/'],
  ['GET', '/v1/guests/web/working-set/more'],
] as const)('%s %s is NOT_FOUND', async (method, url) => {
  const answer = await api.inject({ method, url })
  expect(answer.statusCode).toBe(404)
  expect(answer.json()).toEqual({ code: 'NOT_FOUND', message: `no ${method} ${url} in this API` })
})

test.each([
  ['that cannot be decoded', '/v1/guests/%zz'],
  ['that is too long', `/v1/guests/${'x'.repeat(2_000)}`],
  ['with a wrong value', '/v1/guests/web/working-set?intervalMs=soon'],
])('a path %s is an error of this form, too', async (_, url) => {
  const answer = await api.inject({ method: 'GET', url })
  expect([400, 404, 414]).toContain(answer.statusCode)
  expect(answer.json()).toEqual({
    code: expect.stringMatching(/^(BAD_ARGUMENT|NOT_FOUND)$/),
    message: expect.stringMatching(/^.{1,300}$/),
  })
})
