/** Whether QEMU loads the library that tracks, guards and fences (native/shim): found out by starting it once. */
import { closeSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openUnnameable, readShimStatus, shimEnvironment, shimPath } from '../../tracking/shim.ts'
import { type HostItem, item } from './item.ts'
import { lastLine, probeQemu } from './probe-qemu.ts'

const timeMsMax = 10_000

export async function checkShim(): Promise<HostItem[]> {
  const purpose =
    'in QEMU: names written pages, resumes a guest whose agent hangs, keeps a copy that was taken over silent'
  const folder = mkdtempSync(join(tmpdir(), 'subpage-check-'))
  const library = openUnnameable()
  try {
    const status = join(folder, 'status')
    const environment = shimEnvironment({
      ...(library !== undefined && { library: `/proc/${process.pid}/fd/${library}` }),
      ram: join(folder, 'ram'),
      status,
    })
    const outcome = await probeQemu(
      [
        ...['-M', 'none', '-nodefaults', '-no-user-config', '-display', 'none', '-qmp', 'stdio'],
        ...['-object', `memory-backend-file,id=ram,size=16M,share=on,mem-path=${join(folder, 'ram')}`],
      ],
      { environment, stdin: '{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n', timeMsMax },
    )
    // Whatever starts QEMU may load it, too: it is QEMU that maps RAM.
    if ((readShimStatus(status)?.tracking ?? 'waiting') !== 'waiting')
      return [item('preloaded library', purpose, 'QEMU loads it')]
    return [
      item('preloaded library', purpose, `QEMU does not load ${shimPath}: ${lastLine(outcome, timeMsMax)}`, {
        otherwise: 'degraded',
        remedy:
          'build it (npm run build:native); a QEMU that is linked statically, has rights of its own (setuid, file capabilities), or is started by a program that clears LD_PRELOAD does not load it',
      }),
    ]
  } finally {
    if (library !== undefined) closeSync(library)
    rmSync(folder, { recursive: true, force: true })
  }
}
