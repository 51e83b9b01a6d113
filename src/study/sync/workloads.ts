/**
 * What the guest does while it is recorded: programs of the workload image (scripts/build-guest.sh all), started on its
 * console.
 */
export interface Workload {
  name: string
  /** Programs that the image must have. */
  needs: readonly string[]
  /** A line of shell that works until it is killed. */
  command: string
  /** Until it is in its stride, in seconds of the host. */
  settleS: number
  quick: boolean
}

const redis =
  'redis-server --bind 127.0.0.1 --save "" --appendonly no --dir /tmp --loglevel warning & sleep 1; '
const benchmark = (what: string) => `redis-benchmark -r 20000 -n 100000000 -d 100 -t ${what} -q`

export const workloads: readonly Workload[] = [
  { name: 'idle', needs: [], command: 'sleep 100000', settleS: 1, quick: true },
  {
    name: 'redis-set',
    needs: ['redis-server', 'redis-benchmark'],
    command: `${redis}${benchmark('set')}`,
    settleS: 5,
    quick: true,
  },
  {
    name: 'redis-mix',
    needs: ['redis-server', 'redis-benchmark'],
    command: `${redis}${benchmark('set')} & ${benchmark('incr')} & ${benchmark('get')}`,
    settleS: 5,
    quick: false,
  },
  {
    name: 'memcached',
    needs: ['memcached', 'nc', 'awk'],
    command: `memcached -u root -l 127.0.0.1 -p 11211 -m 64 & sleep 1; awk 'BEGIN { srand(1); for (;;) { n = int(rand() * 20000); if (rand() < 0.7) printf "get key%d\\r\\n", n; else printf "set key%d 0 0 100\\r\\n%-100d\\r\\n", n, rand() * 1e9 } }' | nc 127.0.0.1 11211`,
    settleS: 5,
    quick: false,
  },
  {
    name: 'sqlite',
    needs: ['sqlite3', '/etc/workloads/sqlite'],
    command: '/etc/workloads/sqlite',
    settleS: 5,
    quick: true,
  },
  {
    name: 'compile',
    needs: ['/etc/workloads/compile'],
    command: '/etc/workloads/compile',
    settleS: 4,
    quick: false,
  },
  {
    name: 'shell',
    needs: ['/etc/workloads/shell'],
    command: '/etc/workloads/shell',
    settleS: 4,
    quick: false,
  },
  {
    name: 'stress',
    needs: ['stress-ng', '/etc/workloads/stress'],
    command: '/etc/workloads/stress',
    settleS: 4,
    quick: false,
  },
]
