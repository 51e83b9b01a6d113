/** Sections of a device state, as QEMU writes them: what is told apart, and what cannot be read. */
import { expect, test } from 'vitest'
import { SectionReader } from '../../src/qemu/device-sections.ts'

interface Section {
  name: string
  instance?: number
  content?: Buffer
}

function state(sections: Section[], end = Buffer.of(0)): Buffer {
  const written = sections.flatMap(({ name, instance = 0, content = Buffer.alloc(20) }, id) => {
    const head = Buffer.alloc(6)
    head[0] = 4
    head.writeUInt32BE(id, 1)
    head[5] = name.length
    const numbers = Buffer.alloc(8)
    numbers.writeUInt32BE(instance, 0)
    numbers.writeUInt32BE(1, 4)
    const foot = Buffer.alloc(5)
    foot[0] = 0x7e
    foot.writeUInt32BE(id, 1)
    return [head, Buffer.from(name), numbers, content, foot]
  })
  return Buffer.concat([Buffer.from('QEVM'), Buffer.of(0, 0, 0, 3), ...written, end])
}

test('devices that come and go are seen, whatever else the state holds', () => {
  const reader = new SectionReader()
  const two = [{ name: 'timer' }, { name: 'cpu', instance: 1 }]
  const names = reader.read(state(two))
  expect(names).toEqual(['cpu 1', 'timer'])
  // The content changes, and its length.
  expect(reader.read(state(two.map((one) => ({ ...one, content: Buffer.alloc(20, 7) }))))).toBe(names)
  expect(reader.read(state(two.map((one) => ({ ...one, content: Buffer.alloc(90, 7) }))))).toBe(names)
  expect(reader.read(state([...two, { name: '0000:00:02.0/virtio-balloon' }]))).toEqual([
    '0000:00:02.0/virtio-balloon',
    'cpu 1',
    'timer',
  ])
  // As long as before, and another one.
  expect(reader.read(state([{ name: 'timer' }, { name: 'cpu', instance: 2 }]))).toEqual(['cpu 2', 'timer'])
  expect(reader.read(state(two))).toEqual(['cpu 1', 'timer'])
})

test('what looks like the end of a section is none unless another section follows', () => {
  const like = Buffer.from([0x7e, 0, 0, 0, 0, 4, 0, 0, 0, 9, 0, 0x7e, 0, 0, 0, 0, 0, 1])
  expect(new SectionReader().read(state([{ name: 'a', content: like }, { name: 'b' }]))).toEqual(['a', 'b'])
})

test('what is cut, or is written otherwise, is not read', () => {
  const whole = state([{ name: 'timer' }, { name: 'cpu' }])
  for (let bytes = 9; bytes < whole.length; bytes++)
    expect(new SectionReader().read(whole.subarray(0, bytes)), `${bytes} bytes`).toBeUndefined()
  expect(new SectionReader().read(Buffer.concat([whole, Buffer.of(1)]))).toBeUndefined()
  expect(new SectionReader().read(state([{ name: 'a\n' }]))).toBeUndefined()
})
