/**
 * Three projects: `unit` needs neither QEMU nor privileges and takes less than a minute; `simulation` runs the pair through
 * thousands of schedules in simulated time; `guest` runs real virtual machines.
 */
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/guest/**', 'test/simulation/**'],
          testTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'simulation',
          include: ['test/simulation/**/*.test.ts'],
          testTimeout: 300_000,
        },
      },
      {
        test: {
          name: 'guest',
          include: ['test/guest/**/*.test.ts'],
          globalSetup: ['test/support/global-setup.ts'],
          testTimeout: 180_000,
          hookTimeout: 180_000,
          // Real guests share two cores: one file at a time keeps epochs and failovers meaningful.
          fileParallelism: false,
        },
      },
    ],
  },
})
