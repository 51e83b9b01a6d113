/** Exit statuses of the command line; part of the machine contract (docs/cli.md). */
export const exitStatus = {
  ok: 0,
  failed: 1,
  usage: 2,
  degraded: 3,
  notProtected: 4,
  notFound: 10,
  heldElsewhere: 11,
  refused: 12,
  lacksFeature: 13,
  interrupted: 130,
} as const
