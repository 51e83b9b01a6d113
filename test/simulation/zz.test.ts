import { test } from 'vitest'
import { writeSync, openSync } from 'node:fs'
import { simulate } from './schedule.ts'
test('x', { timeout: 600_000 }, async () => {
  const fd = openSync('/tmp/zz.txt', 'w')
  let s = 1
  const w = async () => { while (s < 400) { const k = s++; writeSync(fd, `start ${k}\n`); const r = await simulate(k); writeSync(fd, `end ${k} ${r.events} ${r.failure?.message}\n`) } }
  await Promise.all(Array.from({ length: 8 }, w))
})
