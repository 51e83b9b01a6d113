/** What the guest does while its working set is estimated, and how the truth is known. */

export interface Case {
  name: string
  /** In the quick set too. */
  quick?: true
  /**
   * `told`: the program says how many different pages it touches; what the guest uses beside is measured, and added.
   * `phases`: as that, and its size changes in known steps. `referenced`: a real program, whose truth is what the accessed
   * bits of the page tables say at the end of each interval.
   */
  truth: 'told' | 'phases' | 'referenced'
  /** Run in the guest until it says `ready`; then ended by the names. */
  command: string
  ready: RegExp
  ends: string
  /** It needs what is in this image (scripts/build-guest.sh), too. */
  addition?: 'node.gz'
}

const workset = (name: string, options: string, more: Partial<Case> = {}): Case => ({
  name,
  truth: 'told',
  command: `workset ${options}`,
  ready: /^workset ready/m,
  ends: 'workset',
  ...more,
})

/** Long enough that three whole intervals fall into a phase. */
const phaseMs = 7000

/** Once it listens on port 6379: up to 20,000 values of 1,000 bytes; then read and written at random. */
const redis = [
  'redis-server --save "" --loglevel warning --dir /tmp & until grep -q :18EB /proc/net/tcp; do sleep 0.1; done',
  'redis-benchmark -q -P 64 -n 40000 -r 20000 -d 1000 -t set >/dev/null',
  'echo redis ready',
  'redis-benchmark -q -l -P 16 -r 20000 -d 1000 -t set,get >/dev/null',
].join('; ')

/** 60,000 rows of 400 bytes in tmpfs; then three of four statements read a row at random, one changes it. */
const sqlite = [
  'rm -f /tmp/rows.db*',
  'echo "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<60000) INSERT INTO t SELECT x, randomblob(400) FROM c;" | sqlite3 /tmp/rows.db',
  'echo sqlite ready',
  'awk "BEGIN { print \\"PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;\\"; for (;;) { id = int(rand()*60000)+1; if (++n % 4) print \\"SELECT length(v) FROM t WHERE id=\\" id \\";\\"; else print \\"UPDATE t SET v=randomblob(400) WHERE id=\\" id \\";\\" } }" | sqlite3 /tmp/rows.db >/dev/null',
].join('; ')

export const cases: readonly Case[] = [
  workset('read 8 MiB', 'mib=8 mode=read'),
  workset('write 8 MiB', 'mib=8 mode=write'),
  workset('read 32 MiB', 'mib=32 mode=read', { quick: true }),
  workset('write 64 MiB', 'mib=64 mode=write'),
  workset('mixed 128 MiB, random', 'mib=128 mode=mixed order=random', { quick: true }),
  workset('read 256 MiB', 'mib=256 mode=read period_ms=500'),
  workset('write 256 MiB, random', 'mib=256 mode=write order=random period_ms=500'),
  workset('mixed 400 MiB', 'mib=400 mode=mixed period_ms=500'),
  workset('strided 16 MiB, every 4th page', 'mib=16 mode=mixed order=strided:4', { quick: true }),
  workset('strided 24 MiB, every 16th page', 'mib=24 mode=mixed order=strided:16'),
  workset('zipf 0.8 in 96 MiB', 'mib=96 mode=mixed order=zipf:80', { quick: true }),
  workset('zipf 1.0 in 256 MiB', 'mib=256 mode=mixed order=zipf:100 period_ms=1000'),
  workset('phases 32 and 160 MiB', `phases=32,160 phase_ms=${phaseMs} mode=mixed`, { truth: 'phases' }),
  workset('phases 96, 64, 128 MiB', `phases=96,64,128 phase_ms=${phaseMs} mode=read`, { truth: 'phases' }),
  {
    name: 'redis under load',
    truth: 'referenced',
    command: `sh -c '${redis}'`,
    ready: /^redis ready/m,
    ends: 'redis-benchmark redis-server',
  },
  {
    name: 'sqlite, reads and updates',
    truth: 'referenced',
    command: `sh -c '${sqlite}'`,
    ready: /^sqlite ready/m,
    ends: 'sqlite3 awk',
  },
  {
    name: 'shell, tar and gzip',
    truth: 'referenced',
    command: '/etc/workloads/shell',
    ready: /^shell round=2/m,
    ends: 'shell',
  },
  {
    name: 'gcc, -O2 over three files',
    truth: 'referenced',
    command: '/etc/workloads/compile',
    ready: /^compile round=1/m,
    ends: 'compile cc1',
  },
  {
    name: 'node, objects made and dropped',
    truth: 'referenced',
    command: '/etc/workloads/node',
    ready: /^node round=2/m,
    ends: 'node',
    addition: 'node.gz',
  },
]

/** Those that can share a guest, with the images that it needs beyond the workload image. */
export function byAdditions(some: readonly Case[]): [additions: string[], alike: Case[]][] {
  return [...new Set(some.map(({ addition }) => addition))].map((addition) => [
    addition ? [addition] : [],
    some.filter((one) => one.addition === addition),
  ])
}
