/**
 * What the API answers, as schemas: docs/openapi.json is made of them. They describe, and change nothing of what is sent. Types that
 * lower rooms own are described here; the compiler holds that description and type are the same.
 */
import { type Static, type TSchema, Type } from '#typebox'
import { operationKinds } from '../replication/operations.ts'
import type { StandbyOutcome } from '../replication/standby-options.ts'
import { Sample } from '../workingset/sample.ts'
import type { GuestDensity, HostDensityStatus } from './density-status.ts'
import { HostEvent } from './event-log.ts'
import { pointColumns } from './guest-history.ts'
import type { LiveMessage } from './live-status.ts'
import { MemoryMap, WorkingSets } from './memory-status.ts'
import {
  type Cancelled,
  GuestStatus,
  HostStatus,
  type Screenshot,
  type Unprotected,
  type Verified,
} from './status.ts'

type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? unknown : never) : never

/** @returns the schema, which the compiler has compared with T */
const describing =
  <T>() =>
  <S extends TSchema>(schema: S & Same<Static<S>, T>): S =>
    schema

/** A schema that others name; its name is in the document. */
const named = <S extends TSchema>(name: string, schema: S): S => Object.assign({}, schema, { $id: name })
const ref = (name: string) => Type.Unsafe<unknown>({ $ref: `${name}#` })

const Refusal = Type.Object({
  code: Type.String({ description: 'of docs/errors.md' }),
  message: Type.String({ description: 'what happened, to what, and what to do' }),
})

const Took = Type.Object({
  how: Type.Literal('took-over'),
  reason: Type.String(),
  at: Type.Number({ description: 'milliseconds since 1970' }),
  takeoverMs: Type.Number(),
  committed: Type.Object({ epoch: Type.Number(), consoleBytes: Type.Number() }),
})
const Outcome = describing<StandbyOutcome>()(
  Type.Union([Took, Type.Object({ how: Type.Literal('discarded'), reason: Type.String() })]),
)

const Difference = Type.Object({
  page: Type.Number(),
  line: Type.Number(),
  in: Type.Union([Type.Literal('shadow'), Type.Literal('image')], { description: 'which copy is wrong' }),
})
const DiskVerified = Type.Object({
  name: Type.String(),
  bytes: Type.Number(),
  difference: Type.Optional(Type.Number({ description: 'first byte of the first 64 KiB that differ' })),
  missing: Type.Optional(Type.String({ description: 'why it was not compared' })),
})
const VerifiedAnswer = describing<Verified>()(
  Type.Object({
    equal: Type.Boolean(),
    pages: Type.Number(),
    epoch: Type.Number(),
    difference: Type.Optional(Difference),
    disks: Type.Array(DiskVerified),
  }),
)

const Percentiles = Type.Object({ p50: Type.Number(), p99: Type.Number() })
const Served = Type.Object({
  pages: Type.Number(),
  us: Type.Union([Percentiles, Type.Null()]),
  rebuildUs: Type.Union([Percentiles, Type.Null()]),
})
const Density = describing<GuestDensity>()(
  Type.Object({
    name: Type.String(),
    standby: Type.Boolean(),
    settings: Type.Object({
      targetBytes: Type.Optional(Type.Number()),
      trustDomain: Type.Optional(Type.String()),
      recentMs: Type.Number(),
      coldMs: Type.Number(),
      budget: Type.Number(),
    }),
    split: Type.Object({
      ...{ pages: Type.Number(), resident: Type.Number(), holes: Type.Number(), filled: Type.Number() },
      ...{ shared: Type.Number(), patched: Type.Number(), packed: Type.Number() },
      ...{ swapped: Type.Number(), whole: Type.Number(), storeBytes: Type.Number() },
    }),
    savedBytes: Type.Number(),
    savedShare: Type.Number(),
    pager: Type.Union([
      Type.Object({
        served: Type.Object({
          ...{ filled: Served, whole: Served, packed: Served, patched: Served, swapped: Served },
        }),
        zeros: Type.Number(),
        retries: Type.Number(),
        reason: Type.String(),
        ended: Type.Boolean(),
      }),
      Type.Null(),
    ]),
  }),
)
const HostDensity = describing<HostDensityStatus>()(
  Type.Object({
    guests: Type.Array(Density),
    store: Type.Union([
      Type.Object({
        ...{ objects: Type.Number(), poolBytes: Type.Number() },
        ...{ swapBytes: Type.Number(), bookBytes: Type.Number() },
      }),
      Type.Null(),
    ]),
    keeper: Type.Union([Type.Object({ pid: Type.Number() }), Type.Null()]),
    error: Type.String(),
  }),
)

const Point = Type.Array(Type.Union([Type.Number(), Type.Null()]), {
  minItems: pointColumns.length,
  maxItems: pointColumns.length,
})
const Live = describing<LiveMessage>()(
  Type.Union([
    Type.Object({ status: HostStatus, points: Type.Record(Type.String(), Point) }),
    Type.Object({ code: Type.String(), message: Type.String() }),
  ]),
)

/** Those that are in more than one answer, once for all. */
export const sharedSchemas = [
  named('GuestStatus', GuestStatus),
  named('HostStatus', Type.Object({ ...HostStatus.properties, guests: Type.Array(ref('GuestStatus')) })),
  named('HostEvent', HostEvent),
  named('GuestDensity', Density),
  named('Error', Refusal),
] as const

/** By what answers with them. */
export const answers = {
  guest: ref('GuestStatus'),
  status: ref('HostStatus'),
  removed: Type.Object({ removed: Type.String(), note: Type.Optional(Type.String()) }),
  unprotected: describing<Unprotected>()(
    Type.Object({ ...GuestStatus.properties, copies: Type.Array(Type.String()) }),
  ),
  outcome: Outcome,
  switchedOver: Type.Object({ switchedOver: Type.String() }),
  verified: VerifiedAnswer,
  cancelled: describing<Cancelled>()(
    Type.Object({
      cancelled: Type.Enum([...operationKinds]),
      copies: Type.Array(Type.String(), {
        description:
          'of a protection: where copies of disks may stay on the other host, which has not answered',
      }),
    }),
  ),
  screenshot: describing<Screenshot>()(
    Type.Object({ png: Type.String({ description: 'a picture in base64' }) }),
  ),
  hostDensity: HostDensity,
  guestDensity: ref('GuestDensity'),
  whole: Type.Object({ whole: Type.String() }),
  events: Type.Array(ref('HostEvent')),
  event: ref('HostEvent'),
  sample: Type.Union([Sample, ref('Error')]),
  refusal: ref('Error'),
  memoryMap: MemoryMap,
  workingSets: WorkingSets,
  live: Live,
  history: Type.Object({
    columns: Type.Tuple(pointColumns.map((name) => Type.Literal(name))),
    points: Type.Array(Point),
  }),
  session: Type.Object({ token: Type.String(), rights: Type.Enum(['operate', 'read']) }),
  dashboard: Type.Object({ url: Type.String() }),
  document: Type.Object({ openapi: Type.String() }, { additionalProperties: true }),
}
