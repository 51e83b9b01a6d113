/** What the guest does while its writes are logged: programs whose demands on memory are known, and some that are not. */
export interface Workload {
  name: string
  /** In the guest; nothing for an idle guest. */
  command: string | undefined
  /** What it says once it is under way. */
  ready: RegExp
  /** Processes that are ended by name. */
  ends: string
  quick: boolean
}

const workset = (name: string, options: string, quick: boolean): Workload => ({
  name,
  command: `workset ${options}`,
  ready: /^workset periods=/m,
  ends: 'workset',
  quick,
})

export const workloads: readonly Workload[] = [
  { name: 'idle', command: undefined, ready: /^/, ends: '', quick: true },
  workset('read 64 MiB', 'mib=64 mode=read order=random period_ms=250', true),
  workset('write 8 MiB', 'mib=8 mode=write order=random period_ms=100', false),
  workset('write 64 MiB', 'mib=64 mode=write order=random period_ms=250', true),
  workset('mixed 64 MiB', 'mib=64 mode=mixed order=random period_ms=250', false),
  workset('zipf 64 MiB', 'mib=64 mode=write order=zipf:99 period_ms=250', false),
  {
    name: 'victim',
    command: 'victim mib=32 </dev/null',
    ready: /^victim step=[1-9]/m,
    ends: 'victim',
    quick: true,
  },
  {
    name: 'sqlite',
    command: '/etc/workloads/sqlite',
    ready: /^sqlite transactions=/m,
    ends: 'sqlite awk sqlite3',
    quick: false,
  },
  {
    name: 'stress',
    command: '/etc/workloads/stress',
    ready: /^stress method=/m,
    ends: 'stress stress-ng',
    quick: false,
  },
]
