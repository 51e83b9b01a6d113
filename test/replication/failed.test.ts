/** A protection that cannot go on is a state of its guest, and no error that nobody hears. */
import { expect, onTestFinished, test } from 'vitest'
import { SubpageError } from '../../src/errors.ts'
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
