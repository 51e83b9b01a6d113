/** Disks as their options have them: given after `--`, discarding, and with errors that the guest is told of. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import {
  consoleAt,
  consoleLength,
  demoGuestOptions,
  typeLine,
  untilConsole,
} from '../../src/qemu/demo-guest.ts'
import { beginRecords, lastRecord, makeDisk, untilRecord } from '../support/guest-disk.ts'
import { Hosts, protect, ramBytes, until } from '../support/hosts.ts'

const name = 'options'

test('a disk of -drive is protected, gives back what is discarded, and another one tells the guest of an error', {
  timeout: 300_000,
}, async () => {
  await using hosts = new Hosts()
  const [a, b] = [await hosts.add('a'), await hosts.add('b')]
  const small = join(hosts.directory, 'small')
  mkdirSync(small)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=12m,mode=700', 'subpage-test', small])
  try {
    const path = join(hosts.directory, 'data.raw')
    const bounded = join(small, 'bounded.raw')
    makeDisk(path)
    makeDisk(bounded)
    const drive = `file=${path},if=none,id=drive-virtio-disk0,format=raw,discard=unmap`
    const { console: log } = await a.client.run({
      ...{ name, ramBytes, accel: 'tcg' },
      options: [
        ...demoGuestOptions(['workload=idle']),
        ...['-drive', drive, '-device', 'virtio-blk-pci,drive=drive-virtio-disk0,serial=given'],
      ],
      disks: [{ path: bounded, name: 'bounded', werror: 'report' }],
    })
    const console = consoleAt(log)
    const say = async (command: string, answer: string) => {
      const from = consoleLength(console)
      await typeLine(console, `run (${command}) && echo ${answer}-said || echo not-${answer}`)
      return await untilConsole(
        console,
        from,
        (said) => new RegExp(`^.*${answer}.*$`, 'm').exec(said)?.[0],
        60_000,
      )
    }
    await untilConsole(console, 0, (said) => /^subpage-guest: ready/m.exec(said) ?? undefined, 120_000)
    const given = 'D=/dev/$(basename $(dirname $(grep -l given /sys/block/vd*/serial)))'
    const other = 'D=/dev/$(basename $(dirname $(grep -l bounded /sys/block/vd*/serial)))'
    expect(await say(`${given}; mkdir -p /mnt; mount -t ext4 -o discard $D /mnt`, 'mounted')).toBe(
      'mounted-said',
    )
    const blocks = () => statSync(path).blocks
    const write = 'dd if=/dev/urandom of=/mnt/big bs=1M count=20 conv=fsync'
    await say(write, 'written')
    const filled = blocks()
    await say('rm /mnt/big && sync', 'removed')
    await expect.poll(blocks, { timeout: 20_000 }).toBeLessThan(filled - 30_000)

    await protect(a, name, b)
    const { disks } = await until(a, name, ({ disks: [disk] }) => disk?.state === 'Protected')
    expect(disks.map((disk) => [disk.name, disk.state])).toEqual([
      ['bounded', 'Protected'],
      ['disk1', 'Protected'],
    ])
    // Mirrors pass no discard on: the guest's disk stays as its copy is.
    await say(write, 'written')
    await say('rm /mnt/big && sync', 'removed')
    expect(await a.client.verify(name)).toMatchObject({ equal: true })

    const failed = `${other}; mkdir -p /other; mount -t ext4 $D /other && dd if=/dev/urandom of=/other/big bs=1M count=30 conv=fsync`
    expect(await say(failed, 'filled')).toBe('not-filled')
    const said = await until(a, name, ({ disks: [disk] }) => (disk?.errors ?? 0) > 0)
    expect(said.disks.map(({ lastError }) => lastError)).toEqual(['write: No space left on device', null])
    await say('umount /mnt', 'unmounted')
    await beginRecords(
      console,
      '$(dirname /dev/x)/$(basename $(dirname $(grep -l given /sys/block/vd*/serial)))',
    )
    await untilRecord(console, 0, 10)
    const last = lastRecord(console, consoleLength(console))
    process.kill((await until(a, name, ({ state }) => state === 'Protected')).pid!, 'SIGKILL')
    const after = await until(b, name, ({ takeover }) => takeover !== null)
    await untilRecord(consoleAt(after.console), 0, last + 5)
  } finally {
    execFileSync('umount', ['-l', small])
  }
})
