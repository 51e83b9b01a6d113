/** Who may ask what over TCP: tokens of files, addresses of the dashboard for one use, and the sessions that come of them. */
import { afterEach, expect, test, vi } from 'vitest'
import { Access } from '../../src/agent/access.ts'
import { limits } from '../../src/limits.ts'

const bearer = (token: string) => `Bearer ${token}`
const refused = expect.objectContaining({ code: 'AUTH_REFUSED' })
const readOnly = expect.objectContaining({ code: 'READ_ONLY' })
afterEach(() => void vi.restoreAllMocks())

test('the token of a file may do everything, that for reading only read, and no other anything', async () => {
  const access = new Access({ operate: 'o'.repeat(32), read: 'r'.repeat(32) })
  await access.check(bearer('o'.repeat(32)), 'operate')
  await access.check(bearer('r'.repeat(32)), 'read')
  await expect(access.check(bearer('r'.repeat(32)), 'operate')).rejects.toEqual(readOnly)
  for (const wrong of [undefined, '', 'Bearer ', bearer('x'), 'o'.repeat(32)])
    await expect(access.check(wrong, 'read')).rejects.toEqual(refused)
})

test('an address lets one page in, once, with the rights that it was made for', async () => {
  const access = new Access({})
  const oneTime = access.invite('read')
  await expect(access.check(bearer(oneTime), 'read')).rejects.toEqual(refused)
  const { token, rights } = await access.enter(bearer(oneTime))
  expect(rights).toBe('read')
  await access.check(bearer(token), 'read')
  await expect(access.check(bearer(token), 'operate')).rejects.toEqual(readOnly)
  await expect(access.enter(bearer(oneTime))).rejects.toEqual(refused)
  await expect(access.enter(bearer(token))).rejects.toEqual(refused)
})

test('an address is too old after two minutes, a session after twelve hours', async () => {
  const access = new Access({})
  const [now, early, late] = [performance.now(), access.invite('operate'), access.invite('operate')]
  const { token } = await access.enter(bearer(early))
  const clock = vi.spyOn(performance, 'now').mockReturnValue(now + 130_000)
  await expect(access.enter(bearer(late))).rejects.toEqual(refused)
  await access.check(bearer(token), 'operate')
  clock.mockReturnValue(now + 13 * 3600_000)
  await expect(access.check(bearer(token), 'read')).rejects.toEqual(refused)
})

test('more sessions than the limit end the oldest', async () => {
  const access = new Access({})
  const enter = async () => (await access.enter(bearer(access.invite('operate')))).token
  const first = await enter()
  const second = await enter()
  for (let more = 0; more < limits.dashboardSessions.value - 1; more++) await enter()
  await expect(access.check(bearer(first), 'read')).rejects.toEqual(refused)
  await access.check(bearer(second), 'read')
})
