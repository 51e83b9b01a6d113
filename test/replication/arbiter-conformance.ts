/**
 * What every arbiter must do, whatever it is made of. `open` opens the same place again, as the other host would.
 */
import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import type { Arbiter, Holder } from '../../src/replication/arbiter.ts'
import { Succession } from '../../src/replication/succession.ts'

const opened: Arbiter[] = []

afterEach(() => {
  for (const arbiter of opened.splice(0)) arbiter.close()
})

export function conformance(open: () => Arbiter, { runs = 20 } = {}): void {
  const host = () => {
    const arbiter = open()
    opened.push(arbiter)
    return arbiter
  }

  describe('decisions', () => {
    it('have no holder until somebody claims, and then that one', async () => {
      const [a, b] = [host(), host()]
      const guest = randomUUID()
      expect(await a.holder(guest, 1)).toBeUndefined()
      const won = await a.claim(guest, 1, 'host-a')
      expect(won).toEqual({ claimant: 'host-a', generation: 1, at: expect.any(String) })
      expect(Number.isNaN(Date.parse(won.at))).toBe(false)
      expect(await b.claim(guest, 1, 'host-b')).toEqual(won)
      expect(await b.holder(guest, 1)).toEqual(won)
      // Claimed again, nothing changes, not even the time.
      expect(await a.claim(guest, 1, 'host-a')).toEqual(won)
    })

    it('are one decision however a guest is spelt', async () => {
      const guest = randomUUID()
      const won = await host().claim(guest.toUpperCase(), 3, 'host-a')
      expect(await host().claim(guest, 3, 'host-b')).toEqual(won)
    })

    it('are kept when the claimant closes', async () => {
      const guest = randomUUID()
      const first = host()
      const won = await first.claim(guest, 1, 'host-a')
      first.close()
      expect(await host().claim(guest, 1, 'host-b')).toEqual(won)
    })

    it('can be given back: then they are void, and the next generation is open to both', async () => {
      const guest = randomUUID()
      const side = (claimant: string) =>
        new Succession({
          ...{ guest, claimant, generation: 1, arbitrated: true },
          ...{ arbiter: host(), save: async () => undefined },
        })
      const [primary, standby] = [side('host-a'), side('host-b')]
      await primary.anchor()
      expect(await standby.claim()).toBeUndefined()
      expect(await primary.claim()).toMatchObject({ claimant: 'host-b', generation: 2 })
      await standby.giveBack()
      expect(await primary.claim()).toBeUndefined()
      expect(primary.generation).toBe(3)
      // Whoever still counts from before meets the same decision.
      expect(await side('host-b').claim()).toMatchObject({ claimant: 'host-a', generation: 3 })
      expect(await side('host-b').successor()).toMatchObject({ claimant: 'host-a', generation: 3 })
    })

    it('have exactly one winner among many who claim at once, and all agree', () =>
      fc.assert(
        fc.asyncProperty(
          fc.array(fc.nat(5), { minLength: 2, maxLength: 16 }),
          fc.nat(1000),
          async (claimants, generation) => {
            const guest = randomUUID()
            const hosts = [host(), host(), host()]
            const answers = await Promise.all(
              claimants.map((claimant, index) =>
                hosts[index % 3]!.claim(guest, generation, `host-${claimant}`),
              ),
            )
            expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1)
            expect(claimants.map((claimant) => `host-${claimant}`)).toContain(answers[0]?.claimant)
            expect(await hosts[0]!.holder(guest, generation)).toEqual(answers[0])
          },
        ),
        { numRuns: runs },
      ))

    it('follow a model: the first claim of a guest and generation stands, others are not touched', () =>
      fc.assert(
        fc.asyncProperty(
          fc.array(fc.tuple(fc.nat(2), fc.nat(2), fc.nat(2), fc.boolean()), { maxLength: 24 }),
          async (steps) => {
            const guests = [randomUUID(), randomUUID(), randomUUID()]
            const hosts = [host(), host(), host()]
            const model = new Map<string, Holder>()
            for (const [guest, generation, who, claims] of steps) {
              const key = `${guest} ${generation}`
              const arbiter = hosts[who]!
              if (!claims) {
                expect(await arbiter.holder(guests[guest]!, generation)).toEqual(model.get(key))
                continue
              }
              const holder = await arbiter.claim(guests[guest]!, generation, `host-${who}`)
              const stands = model.get(key)
              if (stands) expect(holder).toEqual(stands)
              else expect(holder).toMatchObject({ claimant: `host-${who}`, generation })
              model.set(key, holder)
            }
          },
        ),
        { numRuns: runs },
      ))
  })

  describe('marks', () => {
    it('are seen by the other host, and others are not', async () => {
      const mark = randomUUID()
      const [a, b] = [host(), host()]
      expect(await b.seesMark(mark)).toBe(false)
      await a.leaveMark(mark)
      await a.leaveMark(mark)
      expect(await b.seesMark(mark)).toBe(true)
      expect(await b.seesMark(randomUUID())).toBe(false)
    })
  })

  describe('misuse', () => {
    const hostile = [
      '',
      '.',
      '..',
      '../x',
      'a/b',
      '/etc/passwd',
      'a\0b',
      'a\nb',
      '-',
      '.mark',
      'é',
      'x'.repeat(300),
    ]
    const bad = { code: 'BAD_ARGUMENT' }

    it('is refused: names that are none', async () => {
      const arbiter = host()
      const guest = randomUUID()
      for (const name of [...hostile, `${guest}/..`, `${guest}\n`, ` ${guest}`])
        await expect(arbiter.claim(name, 1, 'host-a')).rejects.toMatchObject(bad)
      for (const mark of hostile) {
        await expect(arbiter.leaveMark(mark)).rejects.toMatchObject(bad)
        await expect(arbiter.seesMark(mark)).rejects.toMatchObject(bad)
      }
      for (const generation of [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53])
        await expect(arbiter.claim(guest, generation, 'host-a')).rejects.toMatchObject(bad)
      for (const claimant of ['', 'two words', 'a\nb', 'x'.repeat(256)])
        await expect(arbiter.claim(guest, 1, claimant)).rejects.toMatchObject(bad)
      expect(await arbiter.holder(guest, 1)).toBeUndefined()
    })

    it('is answered: an arbiter that was closed', async () => {
      const arbiter = open()
      arbiter.close()
      arbiter.close()
      const guest = randomUUID()
      const closed = { code: 'ARBITER_UNREACHABLE', message: expect.stringContaining('closed') }
      await expect(arbiter.claim(guest, 1, 'host-a')).rejects.toMatchObject(closed)
      await expect(arbiter.holder(guest, 1)).rejects.toMatchObject(closed)
      await expect(arbiter.leaveMark('mark')).rejects.toMatchObject(closed)
      await expect(arbiter.seesMark('mark')).rejects.toMatchObject(closed)
      expect(await host().holder(guest, 1)).toBeUndefined()
    })
  })

  it('ends a call with the reason of its signal; the next call is not harmed', async () => {
    const arbiter = host()
    const guest = randomUUID()
    const reason = new Error('enough')
    await expect(arbiter.claim(guest, 1, 'host-a', AbortSignal.abort(reason))).rejects.toBe(reason)
    expect(await arbiter.holder(guest, 1)).toBeUndefined()
    const stop = new AbortController()
    const claim = arbiter.claim(guest, 1, 'host-a', stop.signal)
    stop.abort(reason)
    await expect(claim).rejects.toBe(reason)
    // The claim may have got through or not; whoever holds it now, all agree.
    const holder = await arbiter.claim(guest, 1, 'host-b')
    expect(await host().claim(guest, 1, 'host-c')).toEqual(holder)
  })

  it('says where it is, and nothing secret', () => {
    const { description } = host()
    expect(description).toMatch(/^(file \/|etcd https?:\/\/)/)
    expect(description).not.toMatch(/password|@/)
  })
}
