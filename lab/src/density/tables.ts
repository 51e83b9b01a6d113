/** The study's figures as tables, with what the paper says beside them. */
import type { AccessKind } from 'subpage/density/pager'
import type { Table } from 'subpage/report/page'
import type { Accesses } from './accesses.ts'
import type { DensityFindings } from './study.ts'

export const percent = (share: number) => `${(100 * share).toFixed(1)} %`
const micros = (us: number) => `${us.toFixed(1)} µs`
const fromNs = (ns: number) => micros(ns / 1000)

export function tables(findings: DensityFindings): Table[] {
  return [
    savingsTable(findings),
    blocksTable(findings),
    costsTable(findings),
    accessTable(findings),
    sweepTable(findings),
    slowdownTable(findings),
    servedTable(findings),
  ].filter(({ rows }) => rows.length > 0)
}

function savingsTable({ savings }: DensityFindings): Table {
  return {
    name: 'savings',
    title: 'Saved, one technique after the other',
    heading: [
      ...['group', 'pages', 'zero', 'sharing', '+ patching', '+ compression'],
      ...['without zero pages', 'mean patch'],
    ],
    numbers: [1, 2, 3, 4, 5, 6, 7],
    rows: [
      ...savings.map((found) => [
        `${found.group} (${found.guests.join(', ')})`,
        String(found.pages),
        percent(found.zeroPages / found.pages),
        percent(found.sharing),
        percent(found.patching),
        percent(found.packing),
        percent(found.packingWithoutZero),
        `${Math.round(found.meanPatchBytes)} bytes`,
      ]),
      ['Difference Engine, homogeneous', '', '', '', '', '90 %', '', ''],
      ['Difference Engine, mixed', '', '', '', '', '65 %', '', ''],
      ['Difference Engine, Table 1', '393120', '', '50 %', '77 %', '', '', '1070 bytes'],
    ],
  }
}

function blocksTable({ savings }: DensityFindings): Table {
  return {
    name: 'blocks',
    title:
      'Below the page: blocks of unique pages, and what sharing them would save of what compression leaves',
    heading: ['group', 'block', 'zero', 'repeated', 'with any page', 'with pages that stay whole'],
    numbers: [1, 2, 3, 4, 5],
    rows: savings.flatMap(({ group, blocks }) =>
      blocks.map(({ blockBytes, zeroShare, repeatedShare, savesMost, savesWhole }) => [
        group,
        `${blockBytes} bytes`,
        ...[zeroShare, repeatedShare, savesMost, savesWhole].map(percent),
      ]),
    ),
  }
}

/** Microseconds, by Table 2 of the paper (Communications of the ACM, October 2010), on a 2.33 GHz Xeon. */
const paperUs = {
  ...{ share: 6.2, cowBreak: 25.1, compress: 29.7, uncompress: 10.4 },
  ...{ patch: 338.1, unpatch: 18.6, swapOut: 48.9, swapIn: 7151.6 },
}
/** What the paper calls bringing back a page that is held so. */
const paperRebuildUs: Partial<Record<AccessKind, number>> = {
  ...{ whole: paperUs.cowBreak, patched: paperUs.unpatch, swapped: paperUs.swapIn },
  ...{ words: paperUs.uncompress, lz4: paperUs.uncompress, zstd: paperUs.uncompress },
}

function costsTable({ savings, accesses }: DensityFindings): Table {
  const { costNs, group } = savings.at(-1)!
  const surveyed = `on the memories of the ${group} guests`
  const row = (name: string, us: number, paper: number | undefined, where: string) => [
    name,
    micros(us),
    paper === undefined ? '' : micros(paper),
    where,
  ]
  const inStore = ({ operationUs: { evict, pack, swap }, kinds }: Accesses) => [
    row('all of an eviction: read, share, patch, copy, punch out', evict, undefined, 'in the store'),
    row('compress', pack, paperUs.compress, 'in the store'),
    row('swap out', swap, paperUs.swapOut, 'in the store'),
    ...kinds.map(({ kind, rebuildUs }) =>
      row(`rebuild: ${kind}`, rebuildUs.p50, paperRebuildUs[kind], 'p50; in the store'),
    ),
  ]
  return {
    name: 'costs',
    title: 'What each operation on a page takes, in this run, and in the paper on its machine',
    heading: ['operation', 'time', 'paper', ''],
    numbers: [1, 2],
    rows: [
      row('share: hash, look up', costNs.share / 1000, paperUs.share, surveyed),
      row('patch: find similar pages, make patches', costNs.patch / 1000, paperUs.patch, surveyed),
      row('compress', costNs.compress / 1000, paperUs.compress, surveyed),
      ...(accesses ? inStore(accesses) : []),
    ],
  }
}

function accessTable({ accesses }: DensityFindings): Table {
  return {
    name: 'accesses',
    title: 'What an access to a stored page takes, as the thread that makes it sees it',
    heading: [
      ...['kind', 'pages', 'access p50', 'p99', 'of it fault and wake-up', 'rebuild', 'placing the page'],
      'rebuild p99',
    ],
    numbers: [1, 2, 3, 4, 5, 6, 7],
    rows: (accesses?.kinds ?? []).map(({ kind, pages, accessUs, answerUs, rebuildUs }) => [
      kind,
      String(pages),
      micros(accessUs.p50),
      micros(accessUs.p99),
      micros(accessUs.p50 - answerUs.p50),
      micros(rebuildUs.p50),
      micros(answerUs.p50 - rebuildUs.p50),
      micros(rebuildUs.p99),
    ]),
  }
}

function sweepTable({ sweep }: DensityFindings): Table {
  return {
    name: 'sweep',
    title: 'Detectors of similar pages, (k,s),c',
    heading: ['detector', 'patched', 'mean patch', 'saved so far', 'cost a page'],
    numbers: [1, 2, 3, 4],
    rows: sweep.map((point) => [
      point.shape,
      String(point.patchedPages),
      `${Math.round(point.meanPatchBytes)} bytes`,
      percent(point.saved),
      fromNs(point.patchNs),
    ]),
  }
}

function slowdownTable({ live }: DensityFindings): Table {
  return {
    name: 'slowdown',
    title: 'How far a guest is slowed down, and by what',
    heading: [
      ...['guest', 'slowdown', 'between', 'and', 'pairs'],
      ...['by the accounts', 'pauses', 'watching', 'waiting for pages', 'one core, moving pages'],
    ],
    numbers: [1, 2, 3, 4, 5, 6, 7, 8, 9],
    rows: (live?.guests ?? []).map((guest) => [
      guest.name,
      percent(guest.slowdown),
      percent(guest.low),
      percent(guest.high),
      String(guest.pairs.length),
      percent(guest.pausing + guest.watching + guest.waiting),
      percent(guest.pausing),
      percent(guest.watching),
      percent(guest.waiting),
      percent(guest.moving),
    ]),
  }
}

function servedTable({ live }: DensityFindings): Table {
  return {
    name: 'rebuild',
    title: 'Pages that running guests asked for: from reading the fault to its answer',
    heading: ['guest', 'kind', 'pages', 'p50', 'p99', 'rebuild p50'],
    numbers: [2, 3, 4, 5],
    rows: (live?.pagers ?? []).flatMap(({ name, served }) =>
      Object.entries(served)
        .filter(([, { pages }]) => pages > 0)
        .map(([kind, { pages, us, rebuildUs }]) => [
          name,
          kind,
          String(pages),
          micros(us?.p50 ?? 0),
          micros(us?.p99 ?? 0),
          micros(rebuildUs?.p50 ?? 0),
        ]),
    ),
  }
}
