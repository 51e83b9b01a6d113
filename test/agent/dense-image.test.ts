/**
 * A dense image under everything at once: its pages are borrowed, written and given back, leave for the store of a real
 * keeper, are touched by the process whose memory they are, and the keeper is killed. Nothing is ever lost or wrong.
 */
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { makeOwnedDirectory } from '../../src/agent/owned-directory.ts'
import { DenseImage } from '../../src/agent/supervisor/dense-image.ts'
import { runsOf } from '../../src/density/keeper.ts'
import { KeeperClient } from '../../src/density/keeper-client.ts'
import { hashBlocks } from '../../src/memory/hash.ts'
import { pageBytes } from '../../src/memory/page.ts'
import { PageRanges } from '../../src/memory/page-ranges.ts'
import { Region } from '../../src/memory/region.ts'
import { identify } from '../../src/qemu/process.ts'
import { probeUserfault } from '../../src/tracking/tracker.ts'
import { seededRandom } from '../support/random.ts'
import { Victims } from '../tracking/victim.ts'

const pages = 512
const borrowers = 4
const rounds = 150
const all = PageRanges.all(pages)

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

/** An image that is the memory of a process, and how to have its keeper. */
async function imageOfProcess() {
  const victims = new Victims()
  cleanups.push(() => victims.close())
  const victim = await victims.start({ pages })
  const directory = makeOwnedDirectory('subpage-test-image-', '/dev/shm')
  cleanups.push(() => rmSync(directory, { recursive: true, force: true }))
  const place = {
    socket: join(directory, 'keeper.sock'),
    log: join(directory, 'keeper.log'),
    keeper: { directory: join(directory, 'store'), pagesMax: 4 * pages, indexPages: 1024 },
  }
  const guest = {
    id: 'image',
    name: 'image',
    ramPath: victim.target.ramPath,
    ramPages: pages,
    process: identify(victim.pid)!,
    shimStatusPath: victim.statusPath,
    leasePath: '',
  }
  let connected: Promise<KeeperClient> | undefined
  const connect = async () => {
    const client = (await KeeperClient.find(place)) ?? (await KeeperClient.start(place))
    void client.closed.then(() => {
      connected = undefined
    })
    await client.ask('attach', { guest })
    return client
  }
  const keeper = () => {
    connected ??= connect().catch((error) => {
      connected = undefined
      throw error
    })
    return connected
  }
  cleanups.push(async () => {
    const client = await keeper()
    await victim.kill()
    await client.ask('forget', { id: 'image' })
    client.close()
    await client.closed
  })
  const region = Region.map(victim.target.ramPath, { writable: true })
  const image = new DenseImage({
    region,
    id: 'image',
    keeper,
    damaged: (error) => {
      throw error
    },
  })
  const evict = (among: PageRanges) =>
    image.move(among, async (free) =>
      (await keeper()).ask('evict', {
        id: 'image',
        held: null,
        runs: runsOf(free),
        onlySmaller: false,
        trim: false,
      }),
    )
  return { victim, image, keeper, evict, content: () => readFileSync(victim.target.ramPath) }
}

if (probeUserfault().available)
  test('what is borrowed is there, whoever moves it about or dies', async () => {
    const random = seededRandom()
    const { victim, image, keeper, evict, content } = await imageOfProcess()
    const model = Buffer.alloc(pages * pageBytes)
    // Lent before it becomes dense: stays until it is given back.
    const early = await image.borrow(() => all)
    image.begin()
    await evict(all)
    expect(image.region.read(0, pageBytes)).toEqual(new Uint8Array(pageBytes))
    early()
    let busy = borrowers
    const borrow = async (mine: number) => {
      for (let round = 0; round < rounds; round++) {
        // No page is written by two.
        const wanted = PageRanges.of(
          Array.from({ length: random.integer(1, 12) }, () => [
            mine + borrowers * random.integer(0, pages / borrowers - 1),
            1,
          ]),
        )
        const giveBack = await image.borrow(() => wanted)
        for (const page of wanted.pages()) {
          const at = page * pageBytes
          expect(Buffer.compare(image.region.read(at, pageBytes), model.subarray(at, at + pageBytes))).toBe(0)
          model.fill(random.integer(0, 3), at, at + random.integer(0, pageBytes))
        }
        if (random.integer(0, 3) === 0) await delay(1)
        for (const page of wanted.pages())
          image.region.write(page * pageBytes, model.subarray(page * pageBytes, (page + 1) * pageBytes))
        giveBack()
      }
      busy--
    }
    const move = async () => {
      while (busy > 0) {
        const first = random.integer(0, pages - 1)
        // A keeper that was killed: what it had begun is either done or not.
        await evict(PageRanges.of([[first, Math.min(pages - first, random.integer(1, 128))]])).catch(
          (error) => expect(error).toMatchObject({ code: 'KEEPER_FAILED' }),
        )
        await delay(1)
      }
    }
    const kill = async () => {
      for (let n = 0; n < 2 && busy > 0; n++) {
        await delay(random.integer(20, 150))
        const client = await keeper()
        const { pid } = await client.ask('status', {})
        process.kill(pid, 'SIGKILL')
        // Until then it would be asked again, in vain.
        await client.closed
      }
    }
    await Promise.all([...Array.from({ length: borrowers }, (_, mine) => borrow(mine)), move(), kill()])

    // Hashes need no page to come back; those that the process touches come back by themselves.
    await evict(all)
    expect(content().equals(model), `seed ${random.seed}`).toBe(false)
    using copy = Region.anonymous(model.length)
    copy.write(0, model)
    expect(await image.hashes()).toEqual(await hashBlocks(copy, all, pageBytes))
    await victim.run(`load 0 ${pages / 2}`)
    expect(
      content()
        .subarray(0, model.length / 2)
        .equals(model.subarray(0, model.length / 2)),
    ).toBe(true)

    await image.rest()
    await evict(all)
    await image.becomeWhole(async () => void (await (await keeper()).ask('detach', { id: 'image' })))
    expect(content().equals(model), `seed ${random.seed}`).toBe(true)
  })
