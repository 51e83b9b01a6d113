/** What this process keeps, without what is only not collected yet: when that happens is chance. */
import { setImmediate as turn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Bytes of all ArrayBuffers, Buffers among them. */
export async function arrayBufferBytes(): Promise<number> {
  // What is finalized late lets go of more.
  for (let n = 0; n < 3; n++) {
    collect()
    await turn()
  }
  return process.memoryUsage().arrayBuffers
}
