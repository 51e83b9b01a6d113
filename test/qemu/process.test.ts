/** What is known of a process by its number. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { expect, test } from 'vitest'
import { identify, isEnding, isGone } from '../../src/qemu/process.ts'

test('one that SIGKILL was sent to is ending at once, before any of its threads has ended', async () => {
  for (let n = 0; n < 50; n++) {
    const child = spawn('sleep', ['60'])
    const identity = identify(child.pid!)!
    expect(isEnding(identity)).toBe(false)
    const closed = once(child, 'close')
    process.kill(child.pid!, 'SIGKILL')
    const ending = isEnding(identity)
    expect(ending || isGone(identity)).toBe(true)
    await closed
    expect(isGone(identity)).toBe(true)
  }
})
