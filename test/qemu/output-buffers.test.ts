/** Buffers of the outputs of a QEMU that somebody else has started: each card has its own, also after one was plugged out. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addBuffers } from '../../src/qemu/output-buffers.ts'
import { BareQemu } from '../support/bare-qemu.ts'

let qemu: BareQemu

beforeAll(async () => {
  qemu = await BareQemu.start(() => ['-object', 'iothread,id=any'])
})

afterAll(() => qemu[Symbol.asyncDispose]())

const plug = (id: string) => qemu.qmp.run('netdev_add', { type: 'hubport', id, hubid: 0 })

/** Of each buffer, the card that it is of. */
async function buffers(): Promise<Record<string, string>> {
  const objects = await qemu.qmp.run<{ name: string; type: string }[]>('qom-list', { path: '/objects' })
  const of = async ({ name }: { name: string }): Promise<[string, string]> => [
    name,
    await qemu.qmp.run('qom-get', { path: `/objects/${name}`, property: 'netdev' }),
  ]
  return Object.fromEntries(
    await Promise.all(objects.filter(({ type }) => /filter-buffer/.test(type)).map(of)),
  )
}

test('a card that is plugged in after another was plugged out has buffers, and so have those that stayed', async () => {
  await plug('one')
  await plug('two')
  await addBuffers(qemu.qmp, ['one', 'two'])
  const first = { held0: 'one', fresh0: 'one', held1: 'two', fresh1: 'two' }
  expect(await buffers()).toEqual(first)
  await addBuffers(qemu.qmp, ['one', 'two'])
  expect(await buffers()).toEqual(first)
  await qemu.qmp.run('netdev_del', { id: 'one' })
  await plug('three')
  await addBuffers(qemu.qmp, ['two', 'three'])
  const later = { held0: 'two', fresh0: 'two', held1: 'three', fresh1: 'three' }
  expect(await buffers()).toEqual(later)
  // The same card again.
  await qemu.qmp.run('netdev_del', { id: 'three' })
  await plug('three')
  await addBuffers(qemu.qmp, ['two', 'three'])
  expect(await buffers()).toEqual(later)
})
