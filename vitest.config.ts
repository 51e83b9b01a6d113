/**
 * Five projects. `unit` needs neither QEMU nor privileges and takes about a minute; `simulation` runs the pair through schedules of
 * faults in simulated time. Both only compute: they share the cores. `process` starts agents, arbiters and the command line as
 * real processes, and pairs that wait on real time: more of its files run at once than there are cores. `guest` runs real virtual
 * machines, one file after the other: two at a time take as long, for each of them needs both cores. `long`, which is not a part of
 * `npm test`, has a tiny size of each benchmark and study. The time limits are for what hangs: a loaded
 * machine may be ten times as slow.
 */
import { defaultServerConditions } from 'vite'
import { defineConfig } from 'vitest/config'

const processTests = [
  'test/agent/**/*.test.ts',
  'test/cli/{command-line,matrix,outputs,support-bundle,watch}.test.ts',
  'test/disk/{endpoint,raw-disk}.test.ts',
  'test/qemu/{bitmap-map,disk-mirror,output-buffers}.test.ts',
  'test/{package,set-up}.test.ts',
  'test/workingset/process.test.ts',
  'test/replication/{arbiter-etcd,arbiter-file,arbiter-memory,arbiter-open}.test.ts',
  'test/replication/{backlog,cut-connections,disks,failed,failing-checkpoints,give-back,growth,hostile-*,identities,pair,shadow-modes,takeover}.test.ts',
  'lab/test/process/**/*.test.ts',
  'lab/test/amplification/**/*.test.ts',
  'lab/test/ending.test.ts',
]
/** Booting guests. */
const guestTests = ['test/guest/**', 'lab/test/guest/**']
const longTests = ['test/guest/{bench,debian,torture}.test.ts', 'lab/test/guest/study-*.test.ts']

const guests = {
  expect: { poll: { timeout: 20_000 } },
  globalSetup: ['test/support/global-setup.ts'],
  testTimeout: 180_000,
  hookTimeout: 180_000,
  // Real guests share two cores: one file at a time keeps epochs and failovers meaningful.
  fileParallelism: false,
}

export default defineConfig({
  // Packages of this repository are their sources here: one instance of each module, and nothing to build first.
  ssr: { resolve: { conditions: ['source', ...defaultServerConditions] } },
  test: {
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          sequence: { groupOrder: 0 },
          expect: { poll: { timeout: 20_000 } },
          include: ['test/**/*.test.ts', 'lab/test/**/*.test.ts'],
          exclude: [...guestTests, 'test/simulation/**', ...processTests],
          testTimeout: 120_000,
          hookTimeout: 60_000,
          maxWorkers: 2,
        },
      },
      {
        extends: true,
        test: {
          name: 'simulation',
          sequence: { groupOrder: 0 },
          expect: { poll: { timeout: 20_000 } },
          include: ['test/simulation/**/*.test.ts'],
          testTimeout: 300_000,
          maxWorkers: 2,
        },
      },
      {
        extends: true,
        test: {
          name: 'process',
          sequence: { groupOrder: 1 },
          expect: { poll: { timeout: 20_000 } },
          include: processTests,
          testTimeout: 180_000,
          hookTimeout: 60_000,
          maxWorkers: 3,
        },
      },
      {
        extends: true,
        test: {
          ...guests,
          name: 'guest',
          sequence: { groupOrder: 2 },
          include: guestTests.map((folder) => `${folder}/*.test.ts`),
          exclude: longTests,
        },
      },
      {
        extends: true,
        test: {
          ...guests,
          name: 'long',
          sequence: { groupOrder: 3 },
          include: longTests,
        },
      },
    ],
  },
})
