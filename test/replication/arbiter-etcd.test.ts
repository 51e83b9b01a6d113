/**
 * The arbiter in etcd, against real clusters: what every arbiter must do, and what happens when members die, freeze, lose
 * their answers on the way, or do not trust us. The arbiter in a directory: arbiter-file.test.ts.
 */
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { createServer } from 'node:http'
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Arbiter, Holder } from '../../src/replication/arbiter.ts'
import { type ArbiterOptions, openArbiter } from '../../src/replication/arbiters/open.ts'
import { CuttingProxy, type Mode } from '../support/cutting-proxy.ts'
import { EtcdCluster, type EtcdOptions, freePorts, passwords } from '../support/etcd.ts'
import { OwnTime } from '../support/own-time.ts'
import { conformance } from './arbiter-conformance.ts'

/** Default of the arbiter, and what the answer may take beyond. */
const limitMs = 3_000
const slackMs = 1_500
/** For answers that come, however loaded the machine is. */
const patient = { limitMs: 30_000 }
/** For failures that last: no use in waiting long. */
const brief = { limitMs: 500 }

let etcd: EtcdCluster
const opened: Arbiter[] = []

function open(options: ArbiterOptions = {}, ports = etcd.ports): Arbiter {
  const arbiter = openArbiter(etcd.spec(ports), { ...etcd.access, ...options })
  opened.push(arbiter)
  return arbiter
}

function withEtcd(what: string, options: EtcdOptions, tests: () => void): void {
  describe(what, () => {
    beforeAll(async () => {
      etcd = await EtcdCluster.start(options)
    })
    afterEach(() => {
      for (const arbiter of opened.splice(0)) arbiter.close()
    })
    afterAll(async () => await etcd?.[Symbol.asyncDispose]())
    tests()
  })
}

const unreachable = (message = /./) => ({
  code: 'ARBITER_UNREACHABLE',
  message: expect.stringMatching(message),
})

/** Repeats a call while nobody answers; every other error is thrown. */
async function until<T>(call: () => Promise<T>, patienceMs = 20_000): Promise<T> {
  const deadline = performance.now() + patienceMs
  for (;;) {
    try {
      return await call()
    } catch (error) {
      if ((error as { code?: string }).code !== 'ARBITER_UNREACHABLE' || performance.now() > deadline)
        throw error
    }
  }
}

async function expectUnreachable(call: Promise<unknown>, message?: RegExp): Promise<void> {
  using own = new OwnTime()
  await expect(call).rejects.toMatchObject(unreachable(message))
  expect(own.ms).toBeLessThan(limitMs + slackMs)
}

/** They accept connections and never say a word. */
async function silentServers(count: number) {
  const sockets = new Set<Socket>()
  const servers = Array.from({ length: count }, () =>
    createTcpServer((socket) => sockets.add(socket.on('error', () => socket.destroy()))).listen(
      0,
      '127.0.0.1',
    ),
  )
  await Promise.all(servers.map((server) => once(server, 'listening')))
  return {
    ports: servers.map((server) => (server.address() as AddressInfo).port),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await Promise.all(servers.map((server) => once(server.close(), 'close')))
    },
  }
}

withEtcd('one member', {}, () => {
  conformance(() => open(patient))

  it('keeps decisions for ever and marks for a minute', async () => {
    const guest = randomUUID()
    const arbiter = open({ prefix: '/elsewhere/subpage/' })
    await arbiter.claim(guest, 4, 'host-a')
    await arbiter.leaveMark('mark')
    const base64 = (text: string) => Buffer.from(text).toString('base64')
    const read = async (key: string) => {
      const { kvs } = await etcd.call('/v3/kv/range', { key: base64(key) })
      return (kvs as { value: string; lease?: string }[])[0]!
    }
    const decision = await read(`/elsewhere/subpage/decisions/${guest}/4`)
    expect(JSON.parse(Buffer.from(decision.value, 'base64').toString())).toMatchObject({
      format: 1,
      guest,
      generation: 4,
      claimant: 'host-a',
    })
    expect(decision.lease).toBeUndefined()
    const { lease } = await read('/elsewhere/subpage/marks/mark')
    const { grantedTTL } = await etcd.call('/v3/lease/timetolive', { ID: lease })
    expect(grantedTTL).toBe('60')
    expect(await open().seesMark('mark'), 'another prefix is another arbiter').toBe(false)
    await etcd.call('/v3/lease/revoke', { ID: lease })
    expect(await arbiter.seesMark('mark')).toBe(false)
    expect(await arbiter.holder(guest, 4)).toMatchObject({ claimant: 'host-a' })
  })

  it('gives no answer from a decision that is damaged', async () => {
    const guest = randomUUID()
    const key = Buffer.from(`/subpage/decisions/${guest}/1`).toString('base64')
    for (const value of ['', 'null', '{"format":1}', 'x'.repeat(5000)]) {
      await etcd.call('/v3/kv/put', { key, value: Buffer.from(value).toString('base64') })
      await expectUnreachable(open().claim(guest, 1, 'host-a'), /damaged/)
      await expectUnreachable(open().holder(guest, 1), /damaged/)
    }
  })

  it('is unreachable within the limit: nothing listens', async () => {
    const ports = await freePorts(2)
    const arbiter = open({}, ports)
    await Promise.all([
      expectUnreachable(arbiter.claim(randomUUID(), 1, 'host-a'), /127.0.0.1.*ECONNREFUSED/),
      expectUnreachable(arbiter.holder(randomUUID(), 1), /ECONNREFUSED/),
      expectUnreachable(arbiter.leaveMark('mark'), /ECONNREFUSED/),
      expectUnreachable(arbiter.seesMark('mark'), /ECONNREFUSED/),
    ])
  })

  it('is unreachable: something else listens', async () => {
    const stranger = createServer((_, response) => response.end('<html>')).listen(0, '127.0.0.1')
    await once(stranger, 'listening')
    const { port } = stranger.address() as AddressInfo
    await expectUnreachable(open(brief, [port]).claim(randomUUID(), 1, 'host-a'), /no answer of etcd/)
    stranger.close()
    stranger.closeAllConnections()
  })

  it('asks the next endpoint when the first does not answer', async () => {
    const [dead] = await freePorts(1)
    const arbiter = open({}, [dead!, ...etcd.ports])
    expect(await arbiter.claim(randomUUID(), 1, 'host-a')).toMatchObject({ claimant: 'host-a' })
  })

  it('asks every endpoint within the limit, though most of them stay silent', async () => {
    await using holes = await silentServers(4)
    const arbiter = open({}, [...holes.ports, ...etcd.ports])
    expect(await arbiter.claim(randomUUID(), 1, 'host-a')).toMatchObject({ claimant: 'host-a' })
  })

  it('frozen, gives no answer within the limit; thawed, may have heard the claim, and all agree', async () => {
    const guest = randomUUID()
    const arbiter = open()
    await arbiter.holder(guest, 1)
    await etcd.freeze(0)
    try {
      await expectUnreachable(arbiter.claim(guest, 1, 'host-a'), /no answer within/)
      const stop = new AbortController()
      const waiting = arbiter.claim(guest, 1, 'host-a', stop.signal)
      setTimeout(() => stop.abort(new Error('enough')), 50)
      await expect(waiting).rejects.toThrow('enough')
    } finally {
      etcd.thaw(0)
    }
    const holder = await until(() => open().claim(guest, 1, 'host-b'))
    expect(await arbiter.claim(guest, 1, 'host-a')).toEqual(holder)
  })

  it('killed and started again, keeps what was decided', async () => {
    const guest = randomUUID()
    const arbiter = open()
    const won = await arbiter.claim(guest, 1, 'host-a')
    await etcd.kill(0)
    await expectUnreachable(arbiter.claim(guest, 1, 'host-a'))
    await etcd.restart(0)
    expect(await arbiter.claim(guest, 1, 'host-b')).toEqual(won)
  })

  describe('behind a link that loses answers', () => {
    const modes: Mode[] = ['cut', 'half', 'swallow']
    const patience = { attemptMs: 250 }

    for (const mode of modes)
      it(`wins by a claim whose answer was lost (${mode}), and is told so`, async () => {
        await using proxy = await CuttingProxy.start(etcd.ports[0]!)
        const guest = randomUUID()
        proxy.plan = [mode]
        const won = await open(patience, [proxy.port]).claim(guest, 1, 'host-a')
        expect(proxy.lostAnswers).toBe(1)
        expect(won.claimant).toBe('host-a')
        expect(await open().claim(guest, 1, 'host-b')).toEqual(won)
      })

    it('never hears two winners, whichever answers are lost', () =>
      fc.assert(
        fc.asyncProperty(
          fc.array(fc.array(fc.constantFrom<Mode>('pass', ...modes), { maxLength: 4 }), {
            minLength: 2,
            maxLength: 4,
          }),
          async (plans) => {
            const guest = randomUUID()
            const heard = await Promise.all(
              plans.map(async (plan, index) => {
                await using proxy = await CuttingProxy.start(etcd.ports[0]!)
                proxy.plan = [...plan]
                const arbiter = open({ attemptMs: 100, limitMs: 400 }, [proxy.port])
                return await until(() => arbiter.claim(guest, 1, `host-${index}`))
              }),
            )
            expect(new Set(heard.map((holder) => JSON.stringify(holder))).size).toBe(1)
            expect(await open().holder(guest, 1)).toEqual(heard[0])
          },
        ),
        { numRuns: 15 },
      ))

    it('a claim that was given up may have won: the other side then does not', async () => {
      await using proxy = await CuttingProxy.start(etcd.ports[0]!)
      const guest = randomUUID()
      proxy.plan = Array.from({ length: 100 }, () => 'cut')
      const cut = open({ limitMs: 500 }, [proxy.port])
      await expect(cut.claim(guest, 1, 'host-a')).rejects.toMatchObject(unreachable())
      expect(await open().claim(guest, 1, 'host-b')).toMatchObject({ claimant: 'host-a' })
      proxy.plan = []
      expect(await cut.claim(guest, 1, 'host-a')).toMatchObject({ claimant: 'host-a' })
    })
  })
})

withEtcd('three members', { members: 3 }, () => {
  conformance(() => open(patient), { runs: 10 })

  it('is one arbiter, whichever member is asked', async () => {
    const guest = randomUUID()
    const each = etcd.ports.map((port) => open({}, [port]))
    const answers = await Promise.all(each.map((arbiter, index) => arbiter.claim(guest, 1, `host-${index}`)))
    for (const answer of answers) expect(answer).toEqual(answers[0])
    for (const arbiter of each) expect(await arbiter.holder(guest, 1)).toEqual(answers[0])
  })

  it('works on when a follower dies, and after an election when the leader does', async () => {
    const guest = randomUUID()
    const arbiter = open()
    const leader = await etcd.leader()
    const follower = (leader + 1) % 3
    await etcd.kill(follower)
    expect(await arbiter.claim(guest, 1, 'host-a')).toMatchObject({ claimant: 'host-a' })
    await etcd.restart(follower)
    await etcd.kill(await etcd.leader())
    // An election takes one to two seconds, so the first call may be in vain.
    expect(await until(() => arbiter.claim(guest, 2, 'host-a'))).toMatchObject({ claimant: 'host-a' })
    expect(await arbiter.claim(guest, 1, 'host-b')).toMatchObject({ claimant: 'host-a' })
    for (const member of [0, 1, 2]) await etcd.kill(member)
    await etcd.restart(0, 1, 2)
  })

  it('decides nothing without a majority; when it returns, earlier winners stand', async () => {
    const guest = randomUUID()
    const arbiter = open()
    const won = await arbiter.claim(guest, 1, 'host-a')
    await etcd.kill(0, 1)
    const survivor = open({}, [etcd.ports[2]!])
    await Promise.all(
      [arbiter, survivor].flatMap((each) => [
        expectUnreachable(each.claim(guest, 1, 'host-a')),
        expectUnreachable(each.claim(guest, 2, 'host-b')),
        // The survivor knows the first decision, but not whether it is in the majority.
        expectUnreachable(each.holder(guest, 1)),
        expectUnreachable(each.seesMark('mark')),
      ]),
    )
    await etcd.restart(0, 1)
    expect(await until(() => survivor.claim(guest, 1, 'host-b'))).toEqual(won)
    const second = await until(() => arbiter.claim(guest, 2, 'host-c'))
    expect(await survivor.holder(guest, 2)).toEqual(second)
  })

  it('works on when the leader is frozen, and the thawed one knows', async () => {
    const guest = randomUUID()
    const leader = await etcd.leader()
    const arbiter = open()
    await etcd.freeze(leader)
    let won: Holder
    try {
      won = await until(() => arbiter.claim(guest, 1, 'host-a'))
    } finally {
      etcd.thaw(leader)
    }
    const thawed = open({}, [etcd.ports[leader]!])
    expect(await until(() => thawed.claim(guest, 1, 'host-b'))).toEqual(won)
  })

  it('never hears two winners while members die and return', async () => {
    const decided = new Map<string, Holder>()
    const guest = randomUUID()
    let done = false
    const host = async (name: string) => {
      const arbiter = open({ attemptMs: 300, limitMs: 1_000 })
      for (let generation = 0; !done; generation++) {
        const holder = await until(() => arbiter.claim(guest, generation, name), 60_000)
        const key = `${generation}`
        expect(decided.get(key) ?? holder).toEqual(holder)
        decided.set(key, holder)
      }
    }
    const hosts = [host('host-a'), host('host-b')]
    for (let round = 0; round < 3; round++) {
      const leader = await etcd.leader()
      await etcd.kill(leader)
      await until(() => open().claim(guest, 1_000_000 + round, 'test'), 60_000)
      await etcd.restart(leader)
    }
    done = true
    await Promise.all(hosts)
    expect(decided.size).toBeGreaterThan(3)
  })
})

withEtcd('TLS with client certificates', { tls: true }, () => {
  conformance(() => open(patient), { runs: 5 })

  const claim = (options: ArbiterOptions) => open({ ...brief, ...options }).claim(randomUUID(), 1, 'host-a')
  const file = (name: string) => join(etcd.directory, name)

  it('is unreachable for who shows no certificate, or that of another authority', async () => {
    const anonymous = openArbiter(etcd.spec(), { ...brief, caFile: file('ca.pem') })
    opened.push(anonymous)
    await expectUnreachable(anonymous.claim(randomUUID(), 1, 'host-a'), /certificate|alert|ECONNRESET/)
    const stranger = { certFile: file('stranger.pem'), keyFile: file('stranger.key') }
    await expectUnreachable(claim(stranger), /certificate|alert|ECONNRESET/)
  })

  it('is not believed when its own certificate is of another authority', async () => {
    await expectUnreachable(claim({ caFile: file('stranger-ca.pem') }), /certificate/)
    const system = openArbiter(etcd.spec(), {
      ...brief,
      certFile: file('client.pem'),
      keyFile: file('client.key'),
    })
    opened.push(system)
    await expectUnreachable(system.claim(randomUUID(), 1, 'host-a'), /certificate/)
  })

  it('takes up a renewed certificate without being opened again', async () => {
    for (const name of ['certificate', 'key']) fs.writeFileSync(file(name), '', { mode: 0o600 })
    fs.copyFileSync(file('stranger.pem'), file('certificate'))
    fs.copyFileSync(file('stranger.key'), file('key'))
    const arbiter = open({ ...brief, certFile: file('certificate'), keyFile: file('key') })
    const guest = randomUUID()
    await expectUnreachable(arbiter.claim(guest, 1, 'host-a'))
    fs.rmSync(file('key'))
    await expectUnreachable(arbiter.claim(guest, 1, 'host-a'), /cannot read the key for etcd/)
    fs.copyFileSync(file('client.pem'), file('certificate'))
    fs.copyFileSync(file('client.key'), file('key'))
    fs.chmodSync(file('key'), 0o600)
    expect(await arbiter.claim(guest, 1, 'host-a')).toMatchObject({ claimant: 'host-a' })
  })
})

withEtcd('users and passwords', { users: true }, () => {
  conformance(() => open(patient), { runs: 5 })

  it('renews a token that etcd does not take any more', async () => {
    const guest = randomUUID()
    const arbiter = open()
    const won = await arbiter.claim(guest, 1, 'host-a')
    // Ends the user's tokens, as their age does.
    await etcd.call('/v3/auth/user/changepw', { name: 'subpage', password: passwords.subpage })
    expect(await arbiter.claim(guest, 1, 'host-b')).toEqual(won)
    await etcd.call('/v3/auth/user/changepw', { name: 'subpage', password: passwords.subpage })
    const claims = Array.from({ length: 100 }, () => arbiter.claim(guest, 1, 'host-b'))
    for (const answer of await Promise.all(claims)) expect(answer).toEqual(won)
  })

  it('goes on after a restart, and when rights were changed', async () => {
    const guest = randomUUID()
    const arbiter = open(patient)
    const won = await arbiter.claim(guest, 1, 'host-a')
    await etcd.kill(0)
    await etcd.restart(0)
    expect(await arbiter.claim(guest, 1, 'host-b')).toEqual(won)
    await etcd.signInAsRoot()
    await etcd.call('/v3/auth/role/add', { name: 'another' })
    expect(await arbiter.claim(guest, 1, 'host-b')).toEqual(won)
  })

  it('signs in once for a hundred guests: etcd checks ten passwords a second', async () => {
    const arbiter = open({ limitMs: 8_000 })
    const guests = Array.from({ length: 100 }, () => randomUUID())
    const answers = await Promise.all(guests.map((guest) => arbiter.claim(guest, 1, 'host-a')))
    for (const answer of answers) expect(answer.claimant).toBe('host-a')
  })

  it('takes the password from the environment', async () => {
    const { passwordFile: _, ...access } = etcd.access
    process.env.SUBPAGE_ETCD_PASSWORD = passwords.subpage
    const arbiter = openArbiter(etcd.spec(), access)
    try {
      expect(await arbiter.claim(randomUUID(), 1, 'host-a')).toMatchObject({ claimant: 'host-a' })
    } finally {
      delete process.env.SUBPAGE_ETCD_PASSWORD
      arbiter.close()
    }
  })

  it('is told at once of a wrong password, a missing user, and keys out of reach; none of it secret', async () => {
    const wrong = join(etcd.directory, 'wrong')
    fs.writeFileSync(wrong, 'mistaken\n', { mode: 0o600 })
    const guest = randomUUID()
    const anonymous = openArbiter(etcd.spec(), patient)
    opened.push(anonymous)
    const attempts: [Arbiter, RegExp][] = [
      [open({ ...patient, passwordFile: wrong }), /authentication failed/],
      [anonymous, /user name is empty/],
      [open({ ...patient, prefix: '/elsewhere/' }), /permission denied/],
    ]
    for (const [arbiter, message] of attempts) {
      using own = new OwnTime()
      const error = await arbiter.claim(guest, 1, 'host-a').catch((thrown: Error) => thrown)
      expect(error).toMatchObject(unreachable(message))
      expect(own.ms).toBeLessThan(patient.limitMs / 2)
      expect(JSON.stringify([error, (error as Error).message, (error as Error).stack])).not.toMatch(
        /mistaken|pass .?word/,
      )
    }
  })
})

withEtcd('three members over TLS with users', { members: 3, tls: true, users: true }, () => {
  it('decides once for all', async () => {
    const guest = randomUUID()
    const each = etcd.ports.map((port) => open({}, [port]))
    const answers = await Promise.all(each.map((arbiter, index) => arbiter.claim(guest, 1, `host-${index}`)))
    for (const answer of answers) expect(answer).toEqual(answers[0])
  })

  it('says what to do about a client certificate that etcd does not take', async () => {
    const file = (name: string) => join(etcd.directory, name)
    const named = open({ certFile: file('client.pem'), keyFile: file('client.key') })
    await expectUnreachable(named.claim(randomUUID(), 1, 'host-a'), /common name \(CN\); issue one without/)
  })

  it('works on with a token that a dead member gave', async () => {
    const guest = randomUUID()
    const arbiter = open()
    const won = await arbiter.claim(guest, 1, 'host-a')
    await etcd.kill(0)
    expect(await until(() => arbiter.claim(guest, 1, 'host-b'))).toEqual(won)
  })
})
