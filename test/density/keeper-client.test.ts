/** A keeper outlives an upgrade: what one of an older release lacks is said, and all else goes on. */
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, onTestFinished, test } from 'vitest'
import { KeeperClient } from '../../src/density/keeper-client.ts'
import { keeperVersion } from '../../src/density/keeper-protocol.ts'

/** Answers as a keeper of that version does. @returns the calls that came */
async function keeperOf(version: number) {
  const directory = mkdtempSync(join(tmpdir(), 'subpage-keeper-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const calls: string[] = []
  const server = createServer((connection) => {
    createInterface({ input: connection }).on('line', (line) => {
      const { number, call } = JSON.parse(line)
      calls.push(call)
      const gives =
        call === 'status' ? { version, pid: process.pid, guests: [], totals: {} } : { held: [], resident: [] }
      connection.write(`${JSON.stringify({ number, gives })}\n`)
    })
  })
  const socket = join(directory, 'keeper.sock')
  await once(server.listen(socket), 'listening')
  onTestFinished(() => void server.close())
  const keeper = { directory, pagesMax: 1, indexPages: 1 }
  const client = await KeeperClient.find({ socket, log: join(directory, 'log'), keeper })
  onTestFinished(() => client!.close())
  return { client: client!, calls }
}

test('a call that an older keeper lacks is refused before it is asked, by a message that says what to do', async () => {
  const { client, calls } = await keeperOf(keeperVersion - 1)
  for (const _ of [1, 2])
    await expect(client.ask('map', { id: 'web', cellPages: 16 })).rejects.toMatchObject({
      code: 'KEEPER_FAILED',
      message: `the keeper of dense memory (process ${process.pid}) is of an older release (version ${keeperVersion - 1}; 'map' needs ${keeperVersion}): end it with SIGTERM, and a keeper of this release takes up what it holds`,
    })
  expect(calls).toEqual(['status'])
  expect(await client.ask('resident', { id: 'web' })).toEqual({ held: [], resident: [] })
})

test.each([keeperVersion, keeperVersion + 1])('a keeper of version %i has it', async (version) => {
  const { client, calls } = await keeperOf(version)
  for (const _ of [1, 2])
    expect(await client.ask('map', { id: 'web', cellPages: 16 })).toEqual({ held: [], resident: [] })
  expect(calls).toEqual(['status', 'map', 'map'])
})
