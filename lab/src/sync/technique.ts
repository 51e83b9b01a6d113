/**
 * What is compared: ways of sending an epoch, each added to the one before, each alone, and the choices of a predictor. All
 * of them are settings of `protect`.
 */
import type { CodecName } from 'subpage/delta/codec'
import type { Sending } from 'subpage/replication/sending'

export interface Technique {
  name: string
  /** How it is shown beside others: a ladder, each with one thing more; one thing alone; one of several choices. */
  group: 'ladder' | 'alone' | 'choice'
  codec: CodecName
  sending: Sending
  /** Also in the quick set. */
  quick: boolean
}

const all: NonNullable<Sending['reduce']> = ['dictionary', 'sharing', 'similar']

/** Compression of the ladder is zstd, whose bytes are the same each time; `auto` depends on the link and the processor. */
export const techniques: readonly Technique[] = [
  { name: 'whole pages', group: 'ladder', codec: 'page', sending: {}, quick: true },
  { name: 'lines', group: 'ladder', codec: 'line', sending: {}, quick: true },
  { name: 'masked', group: 'ladder', codec: 'masked', sending: {}, quick: true },
  { name: '+ sharing', group: 'ladder', codec: 'masked', sending: { reduce: ['sharing'] }, quick: true },
  {
    name: '+ dictionary',
    group: 'ladder',
    codec: 'masked',
    sending: { reduce: ['sharing', 'dictionary'] },
    quick: true,
  },
  { name: '+ similar', group: 'ladder', codec: 'masked', sending: { reduce: all }, quick: true },
  {
    name: '+ compression',
    group: 'ladder',
    codec: 'masked',
    sending: { reduce: all, compress: 'zstd' },
    quick: true,
  },
  {
    name: '+ speculation',
    group: 'ladder',
    codec: 'masked',
    sending: { reduce: all, compress: 'zstd', speculate: 'auto' },
    quick: true,
  },
  {
    name: 'speculation, whole pages',
    group: 'alone',
    codec: 'page',
    sending: { speculate: 'auto' },
    quick: true,
  },
  { name: 'speculation', group: 'alone', codec: 'masked', sending: { speculate: 'auto' }, quick: false },
  { name: 'xor-rle', group: 'alone', codec: 'xor-rle', sending: {}, quick: true },
  { name: 'dictionary', group: 'alone', codec: 'masked', sending: { reduce: ['dictionary'] }, quick: false },
  { name: 'similar', group: 'alone', codec: 'masked', sending: { reduce: ['similar'] }, quick: false },
  { name: 'zstd, whole pages', group: 'alone', codec: 'page', sending: { compress: 'zstd' }, quick: false },
  { name: 'lz4', group: 'alone', codec: 'masked', sending: { compress: 'lz4' }, quick: false },
  { name: 'zstd', group: 'alone', codec: 'masked', sending: { compress: 'zstd' }, quick: false },
  {
    name: 'all, early always',
    group: 'choice',
    codec: 'masked',
    sending: { reduce: all, compress: 'zstd', speculate: 'always' },
    quick: true,
  },
  {
    name: 'all, compression auto',
    group: 'choice',
    codec: 'masked',
    sending: { reduce: all, compress: 'auto', speculate: 'auto' },
    quick: false,
  },
]

export const wholePages = 'whole pages'
export const allTogether = '+ speculation'
