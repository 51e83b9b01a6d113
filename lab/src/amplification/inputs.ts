/**
 * Inputs of workloads, made here from fixed seeds: the same bytes on every host. They imitate what such programs meet in one
 * respect each: text repeats words by Zipf's law, reads are pieces of a genome with errors, sound and pictures are smooth
 * with noise.
 */
import { closeSync, openSync, writeSync } from 'node:fs'

export const inputKinds = [
  'text',
  'numbers',
  'genome',
  'reads',
  'proteins',
  'c-source',
  'haskell-source',
  'rust-source',
  'sql-insert',
  'sql-update',
  'sound',
  'video',
] as const

export type InputKind = (typeof inputKinds)[number]

/** @param size in the kind's own unit, as docs/workloads.md says */
export function writeInput(path: string, kind: InputKind, size: number): void {
  const fd = openSync(path, 'w')
  try {
    let batch: (string | Uint8Array)[] = []
    let length = 0
    const flush = () => {
      writeSync(fd, Buffer.concat(batch.map((part) => Buffer.from(part))))
      batch = []
      length = 0
    }
    for (const part of makers[kind](size, random(0x5eed + inputKinds.indexOf(kind)))) {
      batch.push(part)
      length += part.length
      if (length > 2 ** 20) flush()
    }
    flush()
  } finally {
    closeSync(fd)
  }
}

/** Numbers in [0, 1), always the same (mulberry32). */
function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let v = Math.imul(state ^ (state >>> 15), 1 | state)
    v = (v + Math.imul(v ^ (v >>> 7), 61 | v)) ^ v
    return ((v ^ (v >>> 14)) >>> 0) / 2 ** 32
  }
}

type Random = () => number
const below = (next: Random, limit: number) => Math.floor(next() * limit)

function drawn(next: Random, letters: string, count: number): string {
  const bytes = Buffer.allocUnsafe(count)
  for (let i = 0; i < count; i++) bytes[i] = letters.charCodeAt(below(next, letters.length))
  return bytes.toString('latin1')
}

/** Pieces of one long text: quicker than drawing each letter. */
function pieces(next: Random, letters: string, length: number): () => string {
  const text = drawn(next, letters, 65_536 + length)
  return () => {
    const at = below(next, 65_536)
    return text.slice(at, at + length)
  }
}

/** Some letters of a text replaced: each with this chance. */
function mutated(next: Random, text: string, chance: number, letters: string): string {
  const bytes = Buffer.from(text, 'latin1')
  for (let i = Math.floor(next() / chance); i < bytes.length; i += 1 + Math.floor((2 * next()) / chance))
    bytes[i] = letters.charCodeAt(below(next, letters.length))
  return bytes.toString('latin1')
}

function vocabulary(next: Random, count: number): string[] {
  return Array.from({ length: count }, () => drawn(next, 'etaoinshrdlucmfwypvbgkqjxz', 2 + below(next, 9)))
}

const zipf = (next: Random, count: number) => Math.min(count - 1, Math.floor(count ** next()) - 1)

function* text(bytes: number, next: Random) {
  const words = vocabulary(next, 20_000)
  for (let made = 0; made < bytes; ) {
    const sentence = `${Array.from({ length: 5 + below(next, 15) }, () => words[zipf(next, words.length)]).join(' ')}.\n`
    made += sentence.length
    yield sentence
  }
}

function* numbers(count: number, next: Random) {
  for (let i = 0; i < count; i++) yield `${below(next, 2 ** 31)}\n`
}

const genomeLetters = (count: number) => drawn(random(7), 'ACGT', count)

function* genome(bases: number) {
  const letters = genomeLetters(bases)
  yield '>chr1\n'
  for (let at = 0; at < bases; at += 60) yield `${letters.slice(at, at + 60)}\n`
}

const readGenomeBases = 2_000_000

/** Reads of 100 bases of the first 2,000,000 that `genome` makes, 1 % of them wrong. */
function* reads(count: number, next: Random) {
  const letters = genomeLetters(readGenomeBases)
  for (let i = 0; i < count; i++) {
    const at = below(next, readGenomeBases - 100)
    const bases = mutated(next, letters.slice(at, at + 100), 0.01, 'ACGT')
    yield `@read${i}\n${bases}\n+\n${'I'.repeat(100)}\n`
  }
}

const aminoAcids = 'ALGVESIKDTRPNFQYHMCW'

/** Families of ten relatives. */
function* proteins(count: number, next: Random) {
  let ancestor = ''
  for (let i = 0; i < count; i++) {
    if (i % 10 === 0) ancestor = drawn(next, aminoAcids, 200 + below(next, 200))
    const relative = mutated(next, ancestor, 0.2, aminoAcids)
    yield `>p${i}\n${relative}\n`
  }
}

function* cSource(functions: number, next: Random) {
  yield 'typedef struct { long a, b; double c; int d[8]; } node;\n'
  for (let i = 0; i < functions; i++) {
    const call = i > 0 ? `f${below(next, i)}(n, x / 2)` : 'x'
    yield `long f${i}(node *n, long x) {
  long sum = ${below(next, 1000)};
  for (int i = 0; i < 8; i++) {
    n->d[i] ^= (int)(x >> i) * ${below(next, 99)};
    if (n->d[i] % ${2 + below(next, 9)} == 0) sum += n->a * i - n->b;
    else n->c = n->c * 1.${below(next, 99)} + sum;
  }
  switch (x & 3) { case 0: return sum; case 1: n->b += sum; break; case 2: n->a -= x; default: sum <<= 1; }
  return x > 1 ? ${call} + sum : sum;
}
`
  }
}

function* haskellSource(functions: number, next: Random) {
  yield 'module Main (main) where\nimport qualified Data.Map as M\n'
  for (let i = 0; i < functions; i++)
    yield `f${i} :: Int -> M.Map Int Int -> Int
f${i} x m | x <= ${below(next, 9)} = M.size m
     | even x = ${i > 0 ? `f${below(next, i)}` : 'flip const'} ${i > 0 ? '' : 'm '}(x \`div\` 2) ${i > 0 ? `(M.insert x ${below(next, 99)} m)` : ''}
     | otherwise = sum [a * b | (a, b) <- M.toList m, a /= ${below(next, 50)}]
`
  yield `main :: IO ()\nmain = print (f${functions - 1} 1000 M.empty)\n`
}

function* rustSource(functions: number, next: Random) {
  yield 'use std::collections::HashMap;\n#[derive(Clone, Debug)] pub struct Node { a: i64, b: Vec<u32>, c: HashMap<u32, String> }\n'
  for (let i = 0; i < functions; i++)
    yield `pub fn f${i}(n: &mut Node, x: i64) -> i64 {
  let s: i64 = n.b.iter().map(|v| *v as i64 * ${below(next, 99)}).filter(|v| v % ${2 + below(next, 7)} == 0).sum();
  n.c.entry(x as u32).or_insert_with(|| format!("{}-{}", s, ${i}));
  if x > ${below(next, 50)} { ${i > 0 ? `f${below(next, i)}(n, x / 2)` : 'x'} + s } else { n.a += s; s }
}
`
  yield `fn main() { let mut n = Node { a: 1, b: vec![1, 2, 3], c: HashMap::new() }; println!("{}", f${functions - 1}(&mut n, 1000)); }\n`
}

/** One statement a line, as single-user servers want it. */
function* sqlInsert(rows: number, next: Random) {
  yield 'CREATE TABLE account (id INTEGER PRIMARY KEY, branch INTEGER, balance INTEGER, note VARCHAR(100));\n'
  const note = pieces(next, 'abcdefghij ', 60)
  for (let i = 0; i < rows; i += 10)
    yield `INSERT INTO account VALUES ${Array.from({ length: 10 }, (_, k) => `(${i + k},${below(next, 50)},${below(next, 10_000)},'${note()}')`).join(',')};\n`
}

function* sqlUpdate(statements: number, next: Random) {
  for (let i = 0; i < statements; i++)
    yield `UPDATE account SET balance = balance + ${below(next, 1000) - 500} WHERE id = ${below(next, 20_000)};\n`
}

/** A WAV file: 16 bits, stereo, 44.1 kHz. */
function* sound(seconds: number, next: Random) {
  const rate = 44_100
  const header = Buffer.from('RIFF    WAVEfmt                     data    ')
  header.writeUInt32LE(36 + 4 * rate * seconds, 4)
  for (const [at, value] of [
    [16, 16],
    [24, rate],
    [28, 4 * rate],
    [40, 4 * rate * seconds],
  ] as const)
    header.writeUInt32LE(value, at)
  for (const [at, value] of [
    [20, 1],
    [22, 2],
    [32, 4],
    [34, 16],
  ] as const)
    header.writeUInt16LE(value, at)
  yield header
  const wave = Float64Array.from({ length: rate }, (_, i) => Math.sin((2 * Math.PI * i) / rate))
  for (let second = 0; second < seconds; second++) {
    const samples = new Int16Array(2 * rate)
    const [low, high] = [100 + below(next, 900), 1000 + below(next, 2000)]
    for (let i = 0; i < rate; i++) {
      const tone = 9000 * wave[(low * i) % rate]! + 4000 * wave[(high * i) % rate]!
      samples[2 * i] = tone + 500 * next()
      samples[2 * i + 1] = tone - 500 * next()
    }
    yield new Uint8Array(samples.buffer)
  }
}

/** YUV4MPEG2, 640 × 360, 4:2:0: gradients that move, with noise. */
function* video(frames: number, next: Random) {
  const [width, height] = [640, 360]
  yield Buffer.from(`YUV4MPEG2 W${width} H${height} F25:1 Ip A1:1 C420jpeg\n`)
  for (let frame = 0; frame < frames; frame++) {
    const picture = new Uint8Array((width * height * 3) / 2).fill(128)
    const [across, down] = [new Float64Array(width), new Float64Array(height)]
    for (let x = 0; x < width; x++) across[x] = 128 + 60 * Math.sin((x + 3 * frame) / 40)
    for (let y = 0; y < height; y++) down[y] = 50 * Math.cos((y - 2 * frame) / 30)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) picture[y * width + x] = across[x]! + down[y]! + 8 * next()
    yield Buffer.from('FRAME\n')
    yield picture
  }
}

const makers: Record<InputKind, (size: number, next: Random) => Iterable<string | Uint8Array>> = {
  text,
  numbers,
  genome,
  reads,
  proteins,
  'c-source': cSource,
  'haskell-source': haskellSource,
  'rust-source': rustSource,
  'sql-insert': sqlInsert,
  'sql-update': sqlUpdate,
  sound,
  video,
}
