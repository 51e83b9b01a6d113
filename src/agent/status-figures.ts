/** Figures in the status of a guest: how far long work is, what its checkpoints cost, and the last one. */
import { Type } from '#typebox'

const Percentiles = Type.Object({ p50: Type.Number(), p99: Type.Number(), max: Type.Number() })
export const Nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) =>
  Type.Union([schema, Type.Null()])

export const Progress = Type.Object({
  doneBytes: Type.Integer({ description: 'of memory and disks: compared or sent' }),
  totalBytes: Type.Integer(),
  bytesPerSecond: Type.Number(),
  secondsLeft: Nullable(Type.Number()),
})

const Durations = Type.Object({
  counts: Type.Array(Type.Integer(), {
    description: 'by length, one for each bound of src/replication/durations.ts and one for what is longer',
  }),
  sumUs: Type.Number(),
})

export const Epochs = Type.Object({
  checkpoints: Type.Integer(),
  failed: Type.Integer(),
  pauseUs: Percentiles,
  ownUs: Percentiles,
  harvestUs: Type.Object(
    { p50: Type.Number(), p99: Type.Number(), max: Type.Number() },
    { description: 'of our own part of the pause, finding the dirty pages' },
  ),
  stopFlushUs: Type.Object(
    { p50: Type.Number(), p99: Type.Number(), max: Type.Number() },
    { description: "of the pause, QEMU's flush of disks; of checkpoints before which a disk was written to" },
  ),
  commitUs: Percentiles,
  gapUs: Type.Object(
    { p50: Type.Number(), p99: Type.Number(), max: Type.Number() },
    { description: 'between two commits one after the other' },
  ),
  durations: Type.Object(
    { pause: Durations, commit: Durations },
    { description: 'pauses and commits counted by length, which can be added and subtracted' },
  ),
  lagMs: Nullable(
    Type.Number({ description: 'age of the state that the standby holds: what a failover now would lose' }),
  ),
  cost: Nullable(
    Type.Object(
      {
        pauses: Type.Number({ description: 'share of time that it stands still' }),
        faults: Type.Number({
          description:
            'share of the time of one virtual CPU that first writes to armed pages take, estimated',
        }),
        outputWaitMs: Nullable(
          Type.Number({
            description: 'how long what it sends waits for its commit, on average; null: not held',
          }),
        ),
      },
      { description: 'what protecting costs the guest, lately' },
    ),
  ),
  bytes: Type.Object({
    dirtyPages: Type.Integer(),
    changedLines: Type.Integer(),
    delta: Type.Integer(),
    sent: Type.Integer(),
    final: Type.Integer({ description: 'of these, sent after the pause: what clients wait for' }),
  }),
  dirtyPages: Type.Integer(),
  earlyPages: Type.Integer({ description: 'of these, sent before the end of their epoch' }),
  earlyPagesAgain: Type.Integer({ description: 'sent early in vain: written again, and sent again' }),
  sharedCaptures: Type.Integer({ description: 'captures of so many pages that two threads shared them' }),
  changedLines: Type.Integer(),
  amplification: Nullable(Type.Number()),
})

export const Last = Type.Object({
  epoch: Type.Integer(),
  pauseUs: Type.Number(),
  ownUs: Type.Number(),
  commitUs: Type.Number(),
  dirtyPages: Type.Integer(),
  changedLines: Type.Integer(),
  sentBytes: Type.Integer(),
  /** What makes the deltas smaller; counts since the connection began. */
  reduced: Type.Object({
    compression: Type.String({
      description: 'none (not reduced), off, lz4 or zstd, as chosen for this epoch',
    }),
    lines: Type.Integer({ description: 'changed lines that were looked up' }),
    dictionaryLines: Type.Integer({ description: 'of these, known to the dictionary' }),
    sharedLines: Type.Integer({ description: 'of these, in the image already, elsewhere' }),
    similarPages: Type.Integer({ description: 'new pages sent as a change of another' }),
    bodyBytes: Type.Integer({ description: 'what was left before compression' }),
  }),
})
