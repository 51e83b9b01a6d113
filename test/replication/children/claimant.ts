/**
 * A host that claims one generation after the other: ROOT GUEST NAME COUNT. Says "ready", waits for its input to end, and
 * prints the winner of each.
 */
import { once } from 'node:events'
import { writeSync } from 'node:fs'
import { FileArbiter } from '../../../src/replication/arbiters/file.ts'

const [root = '', guest = '', name = '', count = '0'] = process.argv.slice(2)
const arbiter = new FileArbiter(root)
writeSync(1, 'ready\n')
process.stdin.resume()
await once(process.stdin, 'end')
for (let generation = 0; generation < Number(count); generation++)
  writeSync(1, `${(await arbiter.claim(guest, generation, name)).claimant}\n`)
arbiter.close()
