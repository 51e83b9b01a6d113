/** Guests with several NUMA nodes: which options describe their memory wholly, and what is said of the others. */
import { expect, test } from 'vitest'
import { nodesOf } from '../../src/qemu/ram-nodes.ts'

const mib = 2 ** 20
const backend = (id: string, size: string) => ['-object', `memory-backend-ram,id=${id},size=${size}`]
const node = (rest: string) => ['-numa', `node,${rest}`]
const two = [...backend('a', '64M'), ...backend('b', '128M')]

test.each([
  [[], undefined],
  [['-smp', '2'], undefined],
  [
    [...two, ...node('memdev=a'), ...node('memdev=b')],
    [64, 128],
  ],
  [
    [...two, ...node('nodeid=0,cpus=0,memdev=a'), ...node('nodeid=1,cpus=1,memdev=b')],
    [64, 128],
  ],
  // Their numbers count, and a node may be without memory.
  [
    [...node('nodeid=4,memdev=b'), ...node('nodeid=2,cpus=0'), ...two, ...node('nodeid=1,memdev=a')],
    [64, 128],
  ],
  [[...backend('a', String(192 * mib)), ...node('memdev=a'), '-numa', 'dist,src=0,dst=1,val=20'], [192]],
])('%j', (options, wanted) => {
  expect(nodesOf(options, 192 * mib)).toEqual(wanted?.map((size) => size * mib))
})

test.each([
  [[...node('cpus=0'), ...node('cpus=1')], /each node needs its memory/],
  [[...two], /each node needs its memory/],
  [[...two, ...node('memdev=a')], /id=b: it is to be the memory of one node/],
  [
    [...two, ...node('memdev=a'), ...node('memdev=b'), ...node('memdev=b')],
    /id=b: it is to be the memory of one/,
  ],
  [[...backend('a', '192M'), ...node('memdev=a'), ...node('memdev=c')], /there is no -object .*id=c/],
  [[...two, ...node('memdev=b'), ...node('memdev=a')], /in the order of their nodes/],
  [[...backend('a', '64M'), ...node('memdev=a')], /192 MiB \(--ram\), and its nodes 64 MiB together/],
  [[...backend('a', '5000'), ...node('memdev=a')], /whole pages/],
  [[...backend('a', '0'), ...node('memdev=a')], /whole pages/],
  [['-object', 'memory-backend-ram,id=a', ...node('memdev=a')], /whole pages/],
  [
    [...Array(9).keys()].flatMap((n) => [...backend(`n${n}`, '4M'), ...node(`memdev=n${n}`)]),
    /8 nodes with memory at most/,
  ],
])('%j', (options, reason) => {
  expect(() => nodesOf(options, 192 * mib)).toThrow(reason)
})
