/**
 * Who gets through to an agent and who does not: every wrong peer is told why, the listener hears why, and nobody hangs.
 * Real sockets and certificates, on loopback.
 */
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { connect as connectPlain, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { type ConnectionOptions, connect as connectTls, createServer as createTlsServer } from 'node:tls'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Address, formatAddress } from '../../src/agent/address.ts'
import { type Credentials, loadCredentials, watchCredentials } from '../../src/agent/credentials.ts'
import { handOver, receiveSocket } from '../../src/agent/descriptors.ts'
import type { HandOver, Incoming, TransportLimits } from '../../src/agent/door.ts'
import { encodePreamble, preambleBytes, proceed, takeBytes } from '../../src/agent/preamble.ts'
import { createTransport, type Listening } from '../../src/agent/transport.ts'
import { SubpageError } from '../../src/errors.ts'
import { limits } from '../../src/limits.ts'
import { Connection } from '../../src/replication/connection.ts'
import { frameType } from '../../src/replication/frame.ts'
import { TestCa } from '../support/certificates.ts'

const directory = mkdtempSync(join(tmpdir(), 'subpage-tls-'))
const hour = 3_600_000
const guestId = '11111111-1111-4111-8111-111111111111'
let ca: TestCa
let otherCa: TestCa
let alpha: () => Credentials
let beta: () => Credentials

beforeAll(async () => {
  ca = await TestCa.make(join(directory, 'ca'))
  otherCa = await TestCa.make(join(directory, 'other'))
  alpha = await ca.credentials('alpha')
  beta = await ca.credentials('beta')
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

let made = 0

/** With certificates on a port, without on a socket. */
class Listener {
  readonly met: Incoming[] = []
  readonly refused: string[] = []
  /** Guests whose connections are for others. */
  readonly routes = new Map<string, HandOver>()
  readonly #listening: Listening

  private constructor(listening: Listening) {
    this.#listening = listening
  }

  static async start(credentials?: () => Credentials, limits?: Partial<TransportLimits>): Promise<Listener> {
    const all = { handshakeMs: 2_000, strangersMax: 8, strangersMaxPerAddress: 4, ...limits }
    let listener: Listener | undefined
    const listening = await createTransport(credentials, all).listen(
      [credentials ? { host: '127.0.0.1', port: 0 } : { path: join(directory, `${made++}.sock`) }],
      {
        connection: (incoming) => {
          listener?.met.push(incoming)
          incoming.stream.on('error', () => undefined)
        },
        refused: (_, error) => listener?.refused.push(`${error.code}: ${error.message}`),
        route: (id) => listener?.routes.get(id),
      },
    )
    listener = new Listener(listening)
    return listener
  }

  get at(): string {
    return formatAddress(this.#address)
  }

  get #address(): Address {
    return this.#listening.addresses[0]!
  }

  get port(): number {
    return 'port' in this.#address ? this.#address.port : 0
  }

  /** A connection that has said which guest it is about, and proves nothing. */
  async introduced(): Promise<Socket> {
    const socket = this.plain()
    socket.write(encodePreamble(guestId))
    expect((await takeBytes(socket, 1))?.[0]).toBe(proceed)
    return socket
  }

  /** A connection that says and proves nothing. */
  plain(): Socket {
    const socket =
      'path' in this.#address ? connectPlain(this.#address.path) : connectPlain(this.port, '127.0.0.1')
    return socket.on('error', () => undefined)
  }

  [Symbol.dispose](): void {
    this.#listening.close()
    for (const { stream } of this.met) stream.destroy()
  }
}

/** Says hello and returns the reason in the answer. */
async function answerTo(stream: Duplex): Promise<string> {
  const connection = new Connection(stream)
  // It may have been closed before; the answer tells.
  connection.send(frameType.hello).catch(() => undefined)
  try {
    for await (const frame of connection) {
      expect(frame.type).toBe(frameType.refuse)
      return JSON.parse(Buffer.from(frame.payload).toString()).message
    }
    return 'closed'
  } catch (error) {
    return (error as Error).message
  } finally {
    connection.close()
  }
}

const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => {
      throw new Error('it was let through')
    },
    (error: SubpageError) => `${error.code}: ${error.message}`,
  )

/** A client of TLS that trusts everything. */
const tlsClient = async (listener: Listener, options: ConnectionOptions = {}) => {
  const socket = await listener.introduced()
  return connectTls({ socket, rejectUnauthorized: false, ...options }).on('error', () => undefined)
}

describe('with certificates', () => {
  test('a peer of the same CA comes through, by its name', async () => {
    using listener = await Listener.start(alpha)
    const stream = await createTransport(beta).connect(listener.at, guestId)
    await new Connection(stream).send(frameType.hello)
    await expect.poll(() => listener.met.length).toBe(1)
    const [met] = listener.met
    expect(met?.peer.name).toBe('beta')
    met?.accept()
    const { value } = await new Connection(met?.stream as Duplex)[Symbol.asyncIterator]().next()
    expect(value).toMatchObject({ type: frameType.hello })
    expect(listener.refused).toEqual([])
    stream.destroy()
  })

  const strangers: [who: string, credentials: () => Promise<() => Credentials>, reason: RegExp][] = [
    ['of another CA', async () => mixed(await otherCa.credentials('mallory')), /not of the CA/],
    [
      'whose certificate has expired',
      () => ca.credentials('late', ['127.0.0.1'], { days: 1, from: new Date(Date.now() - 48 * hour) }),
      /has expired/,
    ],
    [
      'whose certificate is not valid yet',
      () => ca.credentials('early', ['127.0.0.1'], { days: 3, from: new Date(Date.now() + 48 * hour) }),
      /not valid yet/,
    ],
  ]
  /** Trusts our CA, so that it is we who refuse. */
  const mixed = (credentials: () => Credentials) => () => ({ ...credentials(), ca: alpha().ca })

  for (const [who, credentials, reason] of strangers) {
    test(`a primary ${who} is refused, and told why`, async () => {
      using listener = await Listener.start(alpha)
      const stream = await createTransport(await credentials()).connect(listener.at, guestId)
      expect(await answerTo(stream)).toMatch(reason)
      expect(listener.met).toEqual([])
      expect(listener.refused).toEqual([expect.stringMatching(reason)])
      expect(listener.refused[0]).toMatch(/^AUTH_REFUSED/)
    })

    test(`a standby ${who} is not spoken to, and hears of it`, async () => {
      const theirs = await credentials()
      // It trusts us; we do not trust it.
      using listener = await Listener.start(theirs)
      expect(await failure(createTransport(beta).connect(listener.at, guestId))).toMatch(reason)
      await expect.poll(() => listener.refused).toEqual([expect.stringMatching(/hung up|broke off/)])
    })
  }

  test('a peer without a certificate is refused', async () => {
    using listener = await Listener.start(alpha)
    expect(await answerTo(await tlsClient(listener))).toMatch(/shows no certificate/)
    expect(listener.refused).toEqual([expect.stringMatching(/shows no certificate/)])
  })

  test('a resumed session does not stand in for a certificate', async () => {
    using listener = await Listener.start(alpha)
    const sessions: Buffer[] = []
    const first = (await tlsClient(listener)).on('session', (session) => sessions.push(session))
    expect(await answerTo(first)).toMatch(/shows no certificate/)
    const session = sessions[0]
    const second = await tlsClient(listener, session ? { session } : {})
    expect(await answerTo(second)).toMatch(/shows no certificate|not prove/)
    expect(listener.met).toEqual([])
  })

  test('the name in the certificate must be the one that is connected to', async () => {
    using listener = await Listener.start(await ca.credentials('gamma', ['192.0.2.1']))
    expect(await failure(createTransport(beta).connect(listener.at, guestId))).toMatch(
      /^AUTH_REFUSED.*is not trusted.*another host/,
    )
    await expect.poll(() => listener.refused.length).toBe(1)
  })

  test('an address counts as such, a name by DNS', async () => {
    using byName = await Listener.start(await ca.credentials('localhost', []))
    expect(await failure(createTransport(beta).connect(byName.at, guestId))).toMatch(/another host/)
    const stream = await createTransport(beta).connect(`localhost:${byName.port}`, guestId)
    stream.destroy()
  })

  test('a certificate without the use of a client is refused', async () => {
    // The CA's own certificate may sign, and nothing else.
    using listener = await Listener.start(alpha)
    const [cert, key] = ['ca.crt', 'ca.key'].map((name) => readFileSync(join(ca.directory, name)))
    const stream = await tlsClient(listener, { cert: cert as Buffer, key: key as Buffer })
    expect(await answerTo(stream)).toMatch(/its certificate/)
    expect(listener.met).toEqual([])
  })

  test('TLS 1.2 is refused on both sides', async () => {
    using listener = await Listener.start(alpha)
    const { ca: trusted, cert, key } = beta()
    const old = await tlsClient(listener, { ca: trusted, cert, key, maxVersion: 'TLSv1.2' })
    const [error] = (await once(old, 'error')) as [NodeJS.ErrnoException]
    expect(error.code).toMatch(/PROTOCOL_VERSION/)
    await expect.poll(() => listener.refused).toEqual([expect.stringMatching(/AUTH_REFUSED.*TLS 1\.3/)])

    const tls = createTlsServer({ ...alpha(), maxVersion: 'TLSv1.2' })
    const server = createServer(async (socket) => {
      await takeBytes(socket, preambleBytes)
      socket.write(Uint8Array.of(proceed))
      tls.emit('connection', socket)
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as { port: number }
    expect(await failure(createTransport(beta).connect(`127.0.0.1:${port}`, guestId))).toMatch(
      /AUTH_REFUSED.*TLS 1\.3/,
    )
    server.close()
  })

  test('a plaintext peer is refused', async () => {
    using listener = await Listener.start(alpha)
    const plain = await listener.introduced()
    plain.write('SPG2')
    await once(plain.resume(), 'close')
    await expect.poll(() => listener.refused).toEqual([expect.stringMatching(/AUTH_REFUSED/)])
    expect(listener.met).toEqual([])
  })

  test('a peer that sends rubbish in place of a handshake is refused', async () => {
    using listener = await Listener.start(alpha)
    const rubbish = await listener.introduced()
    rubbish.write(Buffer.alloc(600, 0x16))
    await once(rubbish.resume(), 'close')
    await expect.poll(() => listener.refused).toEqual([expect.stringMatching(/AUTH_REFUSED/)])
  })

  test('a renewed certificate serves from the next connection on', async () => {
    const files = await ca.files('renewed', ['127.0.0.1'], {
      days: 1,
      from: new Date(Date.now() - 48 * hour),
    })
    const watched = watchCredentials(files)
    using listener = await Listener.start(watched)
    expect(await failure(createTransport(beta).connect(listener.at, guestId))).toMatch(/expired/)
    await ca.files('renewed')
    const stream = await createTransport(beta).connect(listener.at, guestId)
    stream.destroy()
  })
})

describe('without certificates', () => {
  test('a peer on this machine comes through', async () => {
    using listener = await Listener.start()
    const stream = await createTransport().connect(listener.at, guestId)
    await new Connection(stream).send(frameType.hello)
    await expect.poll(() => listener.met[0]?.peer).toMatchObject({ name: undefined })
    stream.destroy()
  })

  test('nobody else is listened to or connected to, loopback included', async () => {
    const plain = createTransport()
    const handlers = { connection: () => undefined, refused: () => undefined, route: () => undefined }
    for (const host of ['0.0.0.0', '::', '192.0.2.7', '127.0.0.1', '::1', 'localhost'])
      expect(await failure(plain.listen([{ host, port: 0 }], handlers))).toMatch(
        /^TLS_REQUIRED.*subpage cert/,
      )
    for (const to of ['192.0.2.7:7475', '[2001:db8::7]:7475', '169.254.1.1', '127.0.0.1:7475', 'localhost'])
      expect(await failure(plain.connect(to, guestId))).toMatch(
        /^TLS_REQUIRED.*subpage cert.*state directory/,
      )
  })

  test('the socket is for its owner alone, from its first moment', async () => {
    const umask = process.umask(0o077)
    const path = join(directory, 'first.sock')
    const listening = createTransport().listen([{ path }], {
      connection: () => undefined,
      refused: () => undefined,
      route: () => undefined,
    })
    await expect.poll(() => existsSync(path)).toBe(true)
    expect(statSync(path).mode & 0o077).toBe(0)
    expect(statSync(directory).mode & 0o777).toBe(0o700)
    const { close } = await listening
    expect(statSync(path).mode & 0o777).toBe(0o600)
    close()
    process.umask(umask)
  })

  test.each([
    ['speaks TLS at once', Buffer.from([0x16, 0x03, 0x01]), /speaks TLS at once/],
    ['speaks another protocol', Buffer.from('GET / HTTP/1.1\r\nhost: a\r\n\r\n'), /which guest/],
    ['says hello at once, as an older release does', Buffer.from('SPG1'), /which guest/],
  ])('a peer that %s is refused, in words that it can read', async (_, says, reason) => {
    using listener = await Listener.start()
    const stranger = listener.plain()
    stranger.write(Buffer.concat([says, Buffer.alloc(preambleBytes)]))
    const { value } = await new Connection(stranger)[Symbol.asyncIterator]().next()
    expect(JSON.parse(Buffer.from((value as { payload: Uint8Array }).payload).toString()).message).toMatch(
      reason,
    )
    await expect.poll(() => listener.refused).toEqual([expect.stringMatching(reason)])
  })

  test('a peer that says something else and ends is refused, too', async () => {
    using listener = await Listener.start()
    listener.plain().end('GET / HTTP/1.0\r\n\r\n')
    await expect.poll(() => listener.refused).toEqual([expect.stringMatching(/which guest/)])
  })

  test('a connection is handed to whom its guest is with, without a byte of it', async () => {
    using listener = await Listener.start()
    using other = await Listener.start()
    const door = createTransport().door({
      connection: (incoming) => void other.met.push(incoming),
      refused: () => undefined,
    })
    const path = join(directory, 'door.sock')
    let open = false
    const server = createServer({ pauseOnConnect: true }, (agent) =>
      receiveSocket(
        agent,
        () => open,
        (socket, local) => void door.admitted(socket, local),
      ),
    ).listen(path)
    let refused = 0
    listener.routes.set(guestId, async (socket, local) => {
      const took = await handOver(socket, path, local)
      if (!took) refused++
      // It does not take it at first, as one that is just ending.
      open = refused === 3
      return took
    })
    const stream = await createTransport().connect(listener.at, guestId)
    await new Connection(stream).send(frameType.hello)
    await expect.poll(() => other.met.length).toBe(1)
    const { value } = await new Connection(other.met[0]?.stream as Duplex)[Symbol.asyncIterator]().next()
    expect(value).toMatchObject({ type: frameType.hello })
    expect(listener.met).toEqual([])
    expect(refused).toBe(3)
    // The process that accepted it may end.
    server.close()
    stream.destroy()
  })

  test.each([
    ['takes it as it ends', (agent: Socket) => void agent.destroy()],
    ['listens no more', undefined],
  ])('a connection whose process %s stays, and is let in', async (_, onConnect) => {
    using listener = await Listener.start()
    const path = join(directory, 'ending.sock')
    const server = createServer({ pauseOnConnect: true }, onConnect)
    if (onConnect) server.listen(path)
    listener.routes.set(guestId, async (socket, local) => {
      const took = await handOver(socket, path, local)
      listener.routes.delete(guestId)
      return took
    })
    const stream = await createTransport().connect(listener.at, guestId)
    await new Connection(stream).send(frameType.hello)
    await expect.poll(() => listener.met.length).toBe(1)
    const { value } = await new Connection(listener.met[0]?.stream as Duplex)[Symbol.asyncIterator]().next()
    expect(value).toMatchObject({ type: frameType.hello })
    server.close()
    stream.destroy()
  })

  test('a process that hangs is waited for until the connection is given up', async () => {
    using listener = await Listener.start(undefined, { handshakeMs: 100 })
    const path = join(directory, 'hanging.sock')
    const server = createServer({ pauseOnConnect: true }).listen(path)
    let took: boolean | undefined
    listener.routes.set(guestId, async (socket, local) => {
      took = await handOver(socket, path, local)
      return took
    })
    const stranger = listener.plain()
    stranger.write(encodePreamble(guestId))
    await expect.poll(() => took).toBe(false)
    stranger.destroy()
    server.close()
  })

  test.each(['nobody.sock', '.'])('nobody at %s is said', async (name) => {
    expect(await failure(createTransport().connect(join(directory, name), guestId))).toMatch(
      /^PEER_UNREACHABLE.*ENOENT/,
    )
  })
})

describe('strangers', () => {
  for (const secured of [false, true])
    test(`who say nothing are cut off (${secured ? 'TLS' : 'plain'})`, async () => {
      using listener = await Listener.start(secured ? alpha : undefined, { handshakeMs: 100 })
      const silent = listener.plain()
      await once(silent.resume(), 'close')
      await expect.poll(() => listener.refused).toEqual([expect.stringMatching(/no hello within 0.1 s/)])
    })

  test('who shake hands and say nothing are cut off', async () => {
    using listener = await Listener.start(alpha, { handshakeMs: 300 })
    const { ca: trusted, cert, key } = beta()
    const silent = await tlsClient(listener, { ca: trusted, cert, key })
    await once(silent.resume(), 'close')
    await expect.poll(() => listener.refused).toEqual([expect.stringMatching(/no hello within/)])
  })

  test('who stop in the middle of a handshake are cut off', async () => {
    using listener = await Listener.start(alpha, { handshakeMs: 200 })
    const slow = await listener.introduced()
    // A record of a handshake, 512 bytes long, of which nothing more comes.
    slow.write(Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]))
    await once(slow.resume(), 'close')
    await expect.poll(() => listener.refused).toEqual([expect.stringMatching(/no hello within/)])
  })

  test('who begin and never say hello are cut off, unless they are accepted', async () => {
    using listener = await Listener.start(undefined, { handshakeMs: 200 })
    const [kept, dropped] = [await listener.introduced(), await listener.introduced()]
    for (const socket of [kept, dropped]) socket.resume()
    kept.write('SPG2')
    await expect.poll(() => listener.met.length).toBe(1)
    listener.met[0]?.accept()
    dropped.write('SPG2')
    await once(dropped, 'close')
    expect(listener.met[1]?.stream.errored).toMatchObject({ code: 'AUTH_REFUSED' })
    expect(kept.closed).toBe(false)
    kept.destroy()
  })

  test('are as few at a time as the limits say, of one address and of all', async () => {
    const listening = await createTransport(alpha).listen([{ host: '0.0.0.0', port: 0 }], {
      connection: () => undefined,
      refused: () => undefined,
      route: () => undefined,
    })
    const { port } = listening.addresses[0] as { port: number }
    const from = async (localAddress: string) => {
      const socket = connectPlain({ port, host: '127.0.0.1', localAddress }).on('error', () => undefined)
      await once(socket, 'connect')
      return socket.resume()
    }
    const [each, all] = [limits.strangersPerAddress.value, limits.strangers.value]
    const waiting: Socket[] = []
    for (let host = 2; waiting.length < all; host++) {
      const before = waiting.length
      while (waiting.length < before + each) waiting.push(await from(`127.0.0.${host}`))
      await once(await from(`127.0.0.${host}`), 'close')
    }
    await once(await from('127.0.0.99'), 'close')
    expect(waiting.filter(({ closed }) => closed)).toEqual([])
    for (const socket of waiting) socket.destroy()
    listening.close()
  })

  test('are few at a time', async () => {
    using listener = await Listener.start(alpha, { strangersMaxPerAddress: 2 })
    const waiting = [0, 1].map(() => listener.plain())
    await Promise.all(waiting.map((socket) => once(socket, 'connect')))
    const third = listener.plain()
    await once(third.resume(), 'close')
    await expect.poll(() => listener.refused).toEqual([expect.stringMatching(/too many/)])
    for (const socket of waiting) socket.destroy()
    // A place that was left is free again.
    await expect
      .poll(async () => {
        const stream = await createTransport(beta)
          .connect(listener.at, guestId)
          // Not yet, perhaps: it is asked again.
          .catch(() => undefined)
        stream?.destroy()
        return stream !== undefined
      })
      .toBe(true)
  })
})

test('nobody there, or nobody who answers, is said in time', async () => {
  expect(await failure(createTransport(beta).connect('127.0.0.1:1', guestId))).toMatch(
    /^PEER_UNREACHABLE.*ECONNREFUSED/,
  )
  const mute = createServer().listen(0, '127.0.0.1')
  await once(mute, 'listening')
  const { port } = mute.address() as { port: number }
  const hasty = createTransport(beta, { handshakeMs: 100, strangersMax: 1, strangersMaxPerAddress: 1 })
  expect(await failure(hasty.connect(`127.0.0.1:${port}`, guestId))).toMatch(/^PEER_UNREACHABLE.*no answer/)
  mute.close()
})

describe('credentials', () => {
  test('a key that others can read is refused', async () => {
    const files = await ca.files('exposed')
    chmodSync(files.key, 0o640)
    expect(() => loadCredentials(files)).toThrow(expect.objectContaining({ code: 'SECRET_EXPOSED' }))
    expect(() => loadCredentials(files)).toThrow(/mode 0640.*chmod 600/)
  })

  test('a key of another certificate is refused, and not quoted', async () => {
    const [one, two] = [await ca.files('one'), await ca.files('two')]
    const error = (() => {
      try {
        loadCredentials({ ...one, key: two.key })
      } catch (thrown) {
        return thrown
      }
    })()
    expect(error).toBeInstanceOf(SubpageError)
    expect(String(error)).toMatch(/not a certificate, its key and a CA/)
    expect(String(error)).not.toMatch(/PRIVATE KEY/)
  })

  test('a file that is missing is named', async () => {
    const files = await ca.files('complete')
    expect(() => loadCredentials({ ...files, ca: '/nonexistent/ca.crt' })).toThrow(
      /cannot read the CA \/nonexistent\/ca\.cr/,
    )
  })
})
