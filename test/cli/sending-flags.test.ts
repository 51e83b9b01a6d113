/** The flags of `protect` that say how it sends: what they mean on the wire, and what they refuse. */
import { expect, test } from 'vitest'
import type { Invocation } from '../../src/cli/command.ts'
import { readSending } from '../../src/cli/sending-flags.ts'

const given = (flags: Record<string, string>) =>
  readSending({
    sources: {},
    flags: { reduce: 'all', block: '1024', compress: 'auto', speculate: 'auto', shadow: 'full', ...flags },
  } as unknown as Invocation)

test.each([
  [{}, { shadow: 'full' }],
  [{ shadow: 'hash' }, { shadow: 'hash' }],
  [
    { shadow: 'hash', grain: '4096' },
    { shadow: 'hash', grainBytes: 4096 },
  ],
  [{ shadow: 'cache=512M' }, { shadow: { cacheBytes: 512 * 2 ** 20 } }],
  [
    { shadow: 'cache=1.5GiB', grain: '64' },
    { shadow: { cacheBytes: 1.5 * 2 ** 30 }, grainBytes: 64 },
  ],
])('%j', (flags, sending) => {
  const { shadow, grainBytes } = given(flags as Record<string, string>)
  expect({ shadow, ...(grainBytes !== undefined && { grainBytes }) }).toEqual(sending)
})

test.each([
  [{ shadow: 'cache' }, /cache=SIZE/],
  [{ shadow: 'cache=' }, /cache=SIZE/],
  [{ shadow: 'cache=much' }, /not a size/],
  [{ shadow: 'none' }, /--shadow takes/],
  [{ shadow: 'hash', grain: '512' }, /--grain takes/],
])('%j is refused', (flags, message) => {
  expect(() => given(flags as Record<string, string>)).toThrow(message)
})
