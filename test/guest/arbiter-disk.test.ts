/** The arbiter in a directory whose file system is full or read-only: real ones, mounted in a namespace of their own. */
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openArbiter } from '../../src/replication/arbiters/open.ts'

/** A tmpfs that only its shell has mounted; it is reached through the shell's /proc entry, and goes with it. */
async function mount(options: string) {
  const directory = mkdtempSync(join(tmpdir(), 'subpage-disk-'))
  const shell = spawn('unshare', ['--map-root-user', '--mount', 'sh', '-e'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const run = async (command: string) => {
    shell.stdin.write(`${command}\necho done\n`)
    const [ended] = await Promise.race([once(shell.stdout, 'data'), once(shell, 'exit')])
    if (!Buffer.isBuffer(ended)) throw new Error(`cannot ${command}: may this user make namespaces?`)
  }
  await run(`mount -t tmpfs -o mode=700,${options} none ${directory}`)
  return {
    root: `/proc/${shell.pid}/root${directory}`,
    remount: (flags: string) => run(`mount -o remount,${flags} ${directory}`),
    async [Symbol.asyncDispose]() {
      const exit = once(shell, 'exit')
      shell.stdin.end()
      await exit
      rmSync(directory, { recursive: true })
    },
  }
}

const unreachable = (message: RegExp) => ({
  code: 'ARBITER_UNREACHABLE',
  message: expect.stringMatching(message),
})

it('decides nothing on a full disk, still tells what was decided, and goes on when there is room', async () => {
  // Room for one decision: a page.
  await using disk = await mount('size=4k')
  const arbiter = openArbiter(`file:${disk.root}`)
  const guest = randomUUID()
  const won = await arbiter.claim(guest, 1, 'host-a')
  await expect(arbiter.claim(guest, 2, 'host-a')).rejects.toMatchObject(unreachable(/full; make room/))
  expect(await arbiter.holder(guest, 2)).toBeUndefined()
  expect(await arbiter.claim(guest, 1, 'host-b')).toEqual(won)
  await disk.remount('size=1m')
  expect(await arbiter.claim(guest, 2, 'host-b')).toMatchObject({ claimant: 'host-b' })
  arbiter.close()
})

it('decides nothing on a disk without inodes', async () => {
  await using disk = await mount('size=1m,nr_inodes=2')
  const arbiter = openArbiter(`file:${disk.root}`)
  await expect(arbiter.claim(randomUUID(), 1, 'host-a')).rejects.toMatchObject(unreachable(/full; make room/))
  await expect(arbiter.leaveMark('mark')).rejects.toMatchObject(unreachable(/full; make room/))
  arbiter.close()
})

it('decides nothing on a read-only disk, and still tells what was decided', async () => {
  await using disk = await mount('size=1m')
  const arbiter = openArbiter(`file:${disk.root}`)
  const guest = randomUUID()
  const won = await arbiter.claim(guest, 1, 'host-a')
  await disk.remount('ro')
  await expect(arbiter.claim(guest, 2, 'host-a')).rejects.toMatchObject(unreachable(/is read-only/))
  await expect(arbiter.leaveMark('mark')).rejects.toMatchObject(unreachable(/is read-only/))
  expect(await arbiter.claim(guest, 1, 'host-b')).toEqual(won)
  expect(await arbiter.seesMark('mark')).toBe(false)
  arbiter.close()
})
