/** Before and after the guest tests: ends and removes what test runs and demos that were killed have left behind. */
import { sweepOwnedDirectories } from '../../src/agent/owned-directory.ts'

const sweep = () => sweepOwnedDirectories(['subpage-test-', 'subpage-demo-'])

export async function setup(): Promise<void> {
  const swept = await sweep()
  if (swept.length > 0) process.stderr.write(`removed what killed runs had left: ${swept.join(', ')}\n`)
}

export const teardown = sweep
