/** Guests whose RAM is several memory backends: which options describe it wholly, and what is said of the others. */
import { expect, test } from 'vitest'
import { limits } from '../../src/limits.ts'
import { memoryLayout } from '../../src/qemu/memory-backends.ts'

const mib = 2 ** 20
const backend = (id: string, size: string) => ['-object', `memory-backend-ram,id=${id},size=${size}`]
const node = (rest: string) => ['-numa', `node,${rest}`]
const dimm = (rest: string) => ['-device', `pc-dimm,${rest}`]
const two = [...backend('a', '64M'), ...backend('b', '128M')]

test.each([
  [[], undefined, 192, 0],
  [['-smp', '2'], undefined, 192, 0],
  [[...two, ...node('memdev=a'), ...node('memdev=b')], [64, 128], 192, 0],
  [[...two, ...node('nodeid=0,cpus=0,memdev=a'), ...node('nodeid=1,cpus=1,memdev=b')], [64, 128], 192, 0],
  // Their numbers count, and a node may be without memory.
  [
    [...node('nodeid=4,memdev=b'), ...node('nodeid=2,cpus=0'), ...two, ...node('nodeid=1,memdev=a')],
    [64, 128],
    192,
    0,
  ],
  [
    [...backend('a', String(192 * mib)), ...node('memdev=a'), '-numa', 'dist,src=0,dst=1,val=20'],
    [192],
    192,
    0,
  ],
  // The main memory is what --ram has beside them.
  [[...backend('a', '64M'), ...dimm('id=d0,memdev=a')], [128, 64], 128, 1],
  [[...dimm('memdev=a,addr=0x140000000,slot=1'), ...backend('a', '64M')], [128, 64], 128, 1],
  [
    [...backend('a', '64M'), ...backend('b', '32M'), ...dimm('memdev=a'), ...dimm('memdev=b')],
    [96, 64, 32],
    96,
    2,
  ],
  [[...two, ...node('memdev=a'), ...dimm('id=d0,memdev=b,node=0')], [64, 128], 64, 1],
  [[...two, '-device', 'driver=pc-dimm,memdev=b', ...node('memdev=a')], [64, 128], 64, 1],
])('%j', (options, wanted, main, devices) => {
  expect(memoryLayout('q35', options, 192 * mib)).toMatchObject({
    backends: wanted?.map((size) => size * mib),
    mainBytes: main * mib,
    devices,
  })
})

test.each([
  [[...node('cpus=0'), ...node('cpus=1')], /each node needs its memory/],
  [[...two], /id=a: it is to be the memory of one node .* or of one memory device/],
  [[...two, ...node('memdev=a')], /id=b: it is to be the memory of one node/],
  [
    [...two, ...node('memdev=a'), ...node('memdev=b'), ...node('memdev=b')],
    /id=b: it is to be the memory of one/,
  ],
  [
    [...two, ...node('memdev=a'), ...node('memdev=b'), ...dimm('memdev=b')],
    /id=b: it is to be the memory of one/,
  ],
  [
    [...two, ...dimm('memdev=a'), ...dimm('memdev=a'), ...dimm('memdev=b')],
    /id=a: it is to be the memory of one/,
  ],
  [[...backend('a', '192M'), ...node('memdev=a'), ...node('memdev=c')], /there is no -object .*id=c/],
  [[...backend('a', '64M'), ...dimm('memdev=a'), ...dimm('memdev=c')], /there is no -object .*id=c/],
  [[...backend('a', '64M'), ...dimm('memdev=a'), ...dimm('id=d0')], /there is no -object/],
  [[...two, ...node('memdev=b'), ...node('memdev=a')], /in the order of their nodes/],
  [[...two, ...node('memdev=b'), ...dimm('memdev=a')], /behind them in the order of their memory devices/],
  [[...two, ...dimm('memdev=b'), ...dimm('memdev=a')], /in the order of their memory devices/],
  [
    [...backend('a', '64M'), ...node('memdev=a')],
    /192 MiB \(--ram\), and its memory backends have 64 MiB together/,
  ],
  [
    [...two, ...dimm('memdev=a'), ...dimm('memdev=b')],
    /192 MiB \(--ram\), and its memory devices have 192 MiB/,
  ],
  [[...backend('a', '9000000000T'), ...dimm('memdev=a')], /and its memory devices have/],
  [[...backend('a', '64M'), ...node('cpus=0'), ...dimm('memdev=a')], /each node needs its memory/],
  [[...backend('a', '5000'), ...node('memdev=a')], /whole pages/],
  [[...backend('a', '0'), ...node('memdev=a')], /whole pages/],
  [['-object', 'memory-backend-ram,id=a', ...node('memdev=a')], /whole pages/],
  // As QEMU reads it: the last one counts.
  [['-object', 'memory-backend-ram,id=a,size=192M,size=64M', ...node('memdev=a')], /have 64 MiB together/],
  [
    [...Array(limits.memoryBackends.value + 1).keys()].flatMap((n) => [
      ...backend(`n${n}`, '4M'),
      ...node(`memdev=n${n}`),
    ]),
    /16 memory backends at most/,
  ],
  [
    [...Array(limits.memoryBackends.value).keys()].flatMap((n) => [
      ...backend(`n${n}`, '4M'),
      ...dimm(`memdev=n${n}`),
    ]),
    /16 memory backends at most/,
  ],
])('%j', (options, reason) => {
  expect(() => memoryLayout('q35', options, 192 * mib)).toThrow(reason)
})

test.each(['microvm', 'isapc', 'microvm,pit=off'])('a machine of type %s has no slots for memory', (type) => {
  const options = [...backend('a', '64M'), ...dimm('memdev=a')]
  expect(() => memoryLayout(type, options, 192 * mib)).toThrow(/no slots for memory/)
})
