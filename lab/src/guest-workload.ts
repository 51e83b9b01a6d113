/**
 * What a guest does while a study looks at it, as files: workloads/guest/NAME.json names the programs of the workload image
 * (scripts/build-guest.sh all) that it needs, how it is started, and what it says once it is at work. docs/workloads.md
 * explains the fields.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { SubpageError } from 'subpage/errors'
import { type Static, Type } from 'typebox'
import Value from 'typebox/value'
import { labRoot } from './package-root.ts'

const GuestWorkload = Type.Object(
  {
    kind: Type.String(),
    about: Type.String({ minLength: 10 }),
    quick: Type.Optional(Type.Boolean()),
    /** Programs that the image must have. */
    needs: Type.Array(Type.String()),
    /** A line of shell that works until it is killed. */
    run: Type.String(),
    /** What it says on the console when it has begun: a regular expression, `^` begins a line. */
    ready: Type.String(),
    /** From then on until it is in its stride. */
    settleMs: Type.Integer({ minimum: 0 }),
  },
  { additionalProperties: false },
)

export type GuestWorkload = Static<typeof GuestWorkload> & { name: string }

const folder = join(labRoot, 'workloads/guest')

/** All of them, by name. @throws SubpageError BAD_ARGUMENT for a file that is not well-formed */
export function guestWorkloads(): GuestWorkload[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .sort()
    .map((file) => {
      const parsed: unknown = JSON.parse(readFileSync(join(folder, file), 'utf8'))
      if (!Value.Check(GuestWorkload, parsed))
        throw new SubpageError(
          'BAD_ARGUMENT',
          `workload ${join(folder, file)}: ${Value.Errors(GuestWorkload, parsed)[0]?.message ?? 'not well-formed'}`,
        )
      return { name: file.slice(0, -'.json'.length), ...parsed }
    })
}
