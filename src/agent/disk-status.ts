/** What status says of a writable disk. */
import { type Static, Type } from '#typebox'
import { noTraffic } from '../replication/disk-traffic.ts'
import { Nullable } from './status-figures.ts'

export const DiskStatus = Type.Object({
  name: Type.String(),
  bytes: Type.Integer(),
  path: Type.String({ description: 'on this host' }),
  copy: Nullable(Type.String({ description: "on the standby's host" })),
  state: Type.Enum(['Alone', 'Seeding', 'Protected', 'Standby']),
  behindBytes: Type.Integer({ description: 'written here, and not on their way to the standby yet' }),
  journal: Type.Object(
    {
      memoryBytes: Type.Integer({ description: "in the supervisor's memory" }),
      fileBytes: Type.Integer({ description: 'in a file, for want of room there' }),
      spilledBytes: Type.Integer({ description: 'that ever were in the file, since the connection began' }),
    },
    { description: 'what holds the bytes that are behind' },
  ),
  writes: Type.Integer({ description: 'of the guest, and while seeding of what was there' }),
  writtenBytes: Type.Integer(),
  equalBytes: Type.Integer({ description: 'of these, what the standby had already: not sent' }),
  zeroBytes: Type.Integer({ description: 'of these, zeros: sent as a length' }),
  seeded: Nullable(
    Type.Object(
      {
        by: Type.Enum(['map', 'hashes'], {
          description: 'map: what either host has noted as written; hashes: everything was compared',
        }),
        readBytes: Type.Integer({ description: 'read of what was there' }),
        sentBytes: Type.Integer({ description: 'of that, and of what was written meanwhile: sent' }),
      },
      { description: 'how the copy was last brought up to the disk' },
    ),
  ),
  errors: Type.Integer({
    description: 'reads and writes that failed on this host, since its supervisor began',
  }),
  lastError: Nullable(Type.String({ description: 'such as write: No space left on device' })),
  lastErrorCode: Nullable(
    Type.Enum(['DISK_FULL', 'DISK_FAILED'], { description: 'the same for programs, from docs/errors.md' }),
  ),
  /** How it went to the standby, in bytes, since the protection began. */
  sent: Type.Object({
    wireBytes: Type.Integer({ description: 'all that it took on the wire' }),
    sharedBytes: Type.Integer({ description: "as references to the guest's memory" }),
    dictionaryBytes: Type.Integer({ description: 'as codes of lines that were sent lately' }),
    zeroBytes: Type.Integer({ description: 'zeros, as a kind or a length' }),
    compressedBytes: Type.Integer({ description: 'as content, compressed' }),
    plainBytes: Type.Integer({ description: 'as it is' }),
  }),
  cuts: Type.Integer({
    description: 'times that a supervisor stood still, and its mirror was cut for the guest',
  }),
})
export type DiskStatus = Static<typeof DiskStatus>
type DiskPlace = Pick<DiskStatus, 'name' | 'bytes' | 'path'>

/** Of a disk that nothing is known of but its place. */
export const diskStatus = ({ name, bytes, path }: DiskPlace, standby: boolean): DiskStatus => ({
  ...{ name, bytes, path, copy: null },
  state: standby ? 'Standby' : 'Alone',
  ...{ behindBytes: 0, writes: 0, writtenBytes: 0, equalBytes: 0, zeroBytes: 0 },
  journal: { memoryBytes: 0, fileBytes: 0, spilledBytes: 0 },
  ...{ errors: 0, lastError: null, lastErrorCode: null, cuts: 0, seeded: null },
  sent: noTraffic(),
})
