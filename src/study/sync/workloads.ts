/**
 * What the guest does while it is recorded: programs of the workload image (scripts/build-guest.sh all), started on its
 * console.
 */
export interface Workload {
  name: string
  /** Programs that the image must have. */
  needs: readonly string[]
  /** A line of shell that works until it is killed, and what it says when it has begun. */
  command: string
  ready: RegExp
  /** From then on until it is in its stride. */
  settleMs: number
  quick: boolean
}

const atWork = 'echo "study: at work" >/dev/ttyS0'
const saysSo = /^study: at work/m
const redis = `redis-server --bind 127.0.0.1 --save "" --appendonly no --dir /tmp --loglevel warning >/dev/null & until echo PING | timeout 2 nc 127.0.0.1 6379 | grep -q PONG; do sleep 0.2; done; ${atWork}; `
const benchmark = (what: string) => `redis-benchmark -r 20000 -n 100000000 -d 100 -t ${what} -q >/dev/null`
const memcached = `memcached -u root -l 127.0.0.1 -p 11211 -m 64 & until echo version | timeout 2 nc 127.0.0.1 11211 | grep -q VERSION; do sleep 0.2; done; ${atWork}; `
/** 70 % get, 30 % set, of 20,000 keys with 100 bytes each. */
const caching = `awk 'BEGIN { srand(1); for (;;) { n = int(rand() * 20000); if (rand() < 0.7) printf "get key%d\\r\\n", n; else printf "set key%d 0 0 100\\r\\n%-100d\\r\\n", n, rand() * 1e9 } }' | nc 127.0.0.1 11211 >/dev/null`

export const workloads: readonly Workload[] = [
  { name: 'idle', needs: [], command: `${atWork}; sleep 100000`, ready: saysSo, settleMs: 500, quick: true },
  {
    name: 'redis-set',
    needs: ['redis-server', 'redis-benchmark', 'nc'],
    command: redis + benchmark('set'),
    ready: saysSo,
    settleMs: 3000,
    quick: true,
  },
  {
    name: 'redis-mix',
    needs: ['redis-server', 'redis-benchmark', 'nc'],
    command: `${redis}${benchmark('set')} & ${benchmark('incr')} & ${benchmark('get')}`,
    ready: saysSo,
    settleMs: 3000,
    quick: false,
  },
  {
    name: 'memcached',
    needs: ['memcached', 'nc', 'awk'],
    command: memcached + caching,
    ready: saysSo,
    settleMs: 3000,
    quick: false,
  },
  script('sqlite', ['sqlite3'], /^sqlite transactions=[0-9]{3}/m, true),
  script('compile', ['cc1'], /^compile round=1/m, false),
  script('shell', [], /^shell round=2/m, false),
  script('stress', ['stress-ng'], /^stress method=/m, false, 3000),
]

/** Of the image's own. */
function script(name: string, programs: string[], ready: RegExp, quick: boolean, settleMs = 500): Workload {
  const command = `/etc/workloads/${name}`
  return { name, needs: [...programs, command], command, ready, settleMs, quick }
}
