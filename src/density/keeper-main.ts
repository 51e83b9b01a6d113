/**
 * The keeper as a process: `node keeper-main.js '{"socket": …, "keeper": {…}}'`. It answers on its socket, and ends when
 * nobody is connected and it serves no guest. Signals that end a session do not end it; SIGTERM does, and then guests wait.
 */
import { once } from 'node:events'
import { mkdirSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { asSubpageError } from '../errors.ts'
import { lockFile } from '../memory/file-lock.ts'
import { Keeper, type KeeperOptions, preferToLive } from './keeper.ts'
import type { KeeperAnswer, KeeperRequest } from './keeper-protocol.ts'

export interface KeeperArguments {
  socket: string
  keeper: KeeperOptions
}

const reapMs = 1_000

async function main({ socket, keeper: options }: KeeperArguments): Promise<void> {
  process.umask(0o077)
  preferToLive()
  mkdirSync(options.directory, { recursive: true, mode: 0o700 })
  const lock = lockFile(join(options.directory, 'lock'), 'w', 0o600)
  // The one before us may be on its way out, but two must never have one store open.
  if (!lock) throw new Error(`another keeper serves ${options.directory}`)
  const keeper = new Keeper(options)
  const connections = new Set<Socket>()
  const server = createServer((connection) => {
    connections.add(connection)
    connection.on('close', () => {
      connections.delete(connection)
      endIfIdle()
    })
    // An agent that has gone: what it asked for is finished all the same. One that speaks no JSON is not answered.
    serve(keeper, connection).catch(() => connection.destroy())
  })
  rmSync(socket, { force: true })
  // Node binds at once, so the socket has mode 0600 from its first moment.
  process.umask(0o177)
  server.listen(socket)
  process.umask(0o077)
  await once(server, 'listening')
  const end = () => {
    keeper.close()
    rmSync(socket, { force: true })
    lock.release()
    process.exit(0)
  }
  const endIfIdle = () => {
    if (keeper.idle && connections.size === 0) end()
  }
  setInterval(() => {
    keeper.reap()
    endIfIdle()
  }, reapMs)
  process.on('SIGTERM', end)
  process.on('SIGINT', () => undefined)
  process.on('SIGHUP', () => undefined)
}

async function serve(keeper: Keeper, connection: Socket): Promise<void> {
  for await (const line of createInterface({ input: connection }))
    answer(keeper, JSON.parse(line))
      .then((said) => {
        if (connection.writable) connection.write(`${JSON.stringify(said)}\n`)
      })
      // It would wait for its answer for ever.
      .catch(() => connection.destroy())
}

async function answer(keeper: Keeper, { number, call, takes }: KeeperRequest): Promise<KeeperAnswer> {
  try {
    return { number, gives: await keeper.handlers[call](takes as never) }
  } catch (thrown) {
    const { code, message } = asSubpageError(thrown)
    return { number, error: { code, message } }
  }
}

await main(JSON.parse(process.argv[2] ?? ''))
