/** A protection that cannot go on is a state of its guest, and no error that nobody hears. */
import { expect, onTestFinished, test } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
import { realClock } from '../../src/replication/clock.ts'
import { lookMs } from '../../src/replication/work-watch.ts'
import { seededRandom } from '../support/random.ts'
import { Pair } from './pair.ts'
import { ScriptedArbiter } from './scripted-host.ts'

test('a protection that cannot begin leaves no standby behind', async () => {
  const arbiter = new ScriptedArbiter()
  arbiter.reachable = false
  const pair = await Pair.make({ random: seededRandom(), arbiter })
  onTestFinished(() => pair[Symbol.asyncDispose]())
  await expect(pair.protect()).rejects.toMatchObject({ code: 'ARBITER_UNREACHABLE' })
  await expect.poll(() => pair.host.waiting.discarded).toBe(true)
})

test('outputs that cannot be let out end it in Failed, with everything closed, and can be tried again', async () => {
  const pair = await Pair.make({ random: seededRandom() })
  onTestFinished(() => pair[Symbol.asyncDispose]())
  let closed = 0
  const track = pair.guest.track.bind(pair.guest)
  pair.guest.track = () => ({ ...track(), close: () => void closed++ })
  let refuses = true
  pair.guest.freeOutputs = async () => {
    if (refuses) throw new SubpageError('QEMU_FAILED', 'QEMU refuses qom-set')
  }
  const primary = await pair.protect()
  await pair.epochs(2)
  await expect(primary.stop()).rejects.toMatchObject({ message: 'QEMU refuses qom-set' })
  await primary.finished
  expect(primary).toMatchObject({ state: 'Failed', reason: 'QEMU refuses qom-set' })
  expect(closed).toBe(1)
  await expect(primary.verify()).rejects.toMatchObject({ code: 'NOT_PROTECTED' })
  await expect(primary.stop()).rejects.toMatchObject({ message: 'QEMU refuses qom-set' })
  refuses = false
  await primary.stop()
})

test('a standby whose disk hangs is left: what the guest has sent does not wait for it', async () => {
  const pair = await Pair.make({
    ...{ random: seededRandom(), arbiter: new ScriptedArbiter(), durability: 'disk' },
    // Of the standby: it waits a hundred times shorter for its disk.
    clock: { ...realClock, after: (ms, run) => realClock.after(ms === lookMs ? ms / 100 : ms, run) },
  })
  onTestFinished(() => pair[Symbol.asyncDispose]())
  let answer: () => void = () => undefined
  let hangs: Promise<void> = Promise.resolve()
  pair.host.journal = { append: () => hangs, clear: async () => undefined, remove: async () => undefined }
  const primary = await pair.protect()
  await pair.epochs(3)
  hangs = new Promise((resolve) => {
    answer = resolve
  })
  await expect.poll(() => primary.alone).toBe(true)
  expect(primary.reason).toMatch(/does a disk of that host hang/)
  expect(pair.host.standby?.why?.message).toMatch(/does a disk of that host hang/)
  // And is its standby again, once it answers.
  hangs = Promise.resolve()
  answer()
  await expect.poll(() => primary.state).toBe('Protected')
})
