/** An agent that ends with its guests, while another host would give it one. */
import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { Hosts, idle, protect, supervisorsOf, until } from '../support/hosts.ts'

/** Command lines of the processes that name this directory. */
const processesOf = (directory: string) =>
  readdirSync('/proc').flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return []
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ')
      return command.includes(`${directory}/`) ? [command] : []
    } catch {
      // It has ended while we looked.
      return []
    }
  })

test('begins none any more, and leaves none behind', async () => {
  await using hosts = new Hosts()
  const [a, b] = [await hosts.add('a'), await hosts.add('b')]
  await a.client.run({ name: 'slow', ...idle })
  const [slow] = supervisorsOf(a.stateDirectory)
  await b.client.run({ name: 'web', ...idle })
  await protect(b, 'web', a)
  // Until this one answers, the agent is not done.
  process.kill(slow!, 'SIGSTOP')
  const ended = a.end()
  await until(b, 'web', ({ state }) => state !== 'Protected')
  // It tries again, in vain.
  const tried = await until(
    b,
    'web',
    ({ state, reason }) => state === 'Protected' || /ENOENT|ECONNREFUSED/.test(reason),
  )
  process.kill(slow!, 'SIGCONT')
  await ended
  expect([tried.state, tried.reason]).toEqual([expect.not.stringMatching(/Protected/), expect.any(String)])
  expect(processesOf(a.stateDirectory)).toEqual([])
})
