/** The tables of `density status` and of `density analyze`, after Table 1 of the Difference Engine: what each technique leaves, one after the other. */
import type { HostDensityStatus } from '../agent/density-status.ts'
import type { Survey } from '../density/survey.ts'
import { pageBytes } from '../memory/page.ts'
import { columnsOf } from '../text-layout.ts'
import { counted } from '../units.ts'
import { table } from './output.ts'
import { formatBytes } from './sizes.ts'

const percent = (part: number, whole: number) =>
  whole === 0 ? '–' : `${((100 * part) / whole).toFixed(1)} %`

export function surveyReport(survey: Survey): string {
  const { bytes } = survey
  const whole = bytes.total
  const steps: [string, number, number, number, string][] = [
    ['zero or one word', survey.zero + survey.filled, whole, bytes.withoutFilled, `${survey.zero} zero`],
    ['identical', survey.shared, bytes.withoutFilled, bytes.shared, ''],
    [
      'patchable',
      survey.patched,
      bytes.shared,
      bytes.patched,
      survey.patched
        ? `patch ${mean(survey.patchBytes, survey.patched)}, ${survey.references} references`
        : '',
    ],
    [
      'compressible',
      survey.packed,
      bytes.patched,
      bytes.packed,
      survey.packed ? `packed ${mean(survey.packedBytes, survey.packed)}: ${packings(survey)}` : '',
    ],
  ]
  const rows = steps.map(([name, pages, before, after, note]) => [
    name,
    String(pages),
    formatBytes(before - after),
    formatBytes(after),
    percent(whole - after, whole),
    note,
  ])
  return [
    `${counted(survey.images.length, 'image')}, ${counted(survey.pages, 'page')}, ${formatBytes(whole)}`,
    '',
    table([['technique', 'pages', 'saves', 'leaves', 'saved so far', ''], ...rows]),
    '',
    table([
      ['blocks of unique pages', 'zero', 'repeated', 'would save besides', 'of whole pages only'],
      ...survey.blocks.map((block) => [
        `${block.blockBytes} bytes`,
        percent(block.zeroShare, 1),
        percent(block.repeatedShare, 1),
        percent(block.savesMost, 1),
        percent(block.savesWhole, 1),
      ]),
    ]),
    '',
    rates(survey),
  ].join('\n')
}

const mean = (bytes: number, count: number) => `${Math.round(bytes / count)} bytes`

const packings = ({ packings: { words, lz4, zstd } }: Survey) => `${words} words, ${lz4} lz4, ${zstd} zstd`

function rates(survey: Survey): string {
  const { share, patch, pack } = survey.seconds
  const rate = (seconds: number) => `${formatBytes((survey.pages * pageBytes) / Math.max(seconds, 1e-9))}/s`
  const passes = (count: number) => (count > 1 ? ` (${count} passes)` : '')
  return `identical pages found at ${rate(share)}${passes(survey.passes)}, with patches ${rate(share + patch)}${passes(survey.patchPasses)}, with compression ${rate(share + patch + pack)}`
}

/** Per guest: where its pages are, in bytes of its memory, and what is saved of what it holds. */
export function densityTable(
  { guests, store, error }: HostDensityStatus,
  columns = columnsOf(process.stdout),
): string {
  if (guests.length === 0) return 'no guest is held densely'
  const bytes = (pages: number) => formatBytes(pages * pageBytes)
  const rows = guests.map(({ name, standby, settings, split, savedBytes, savedShare, pager }) => [
    standby ? `${name} (standby)` : name,
    settings.trustDomain ?? '–',
    settings.targetBytes === undefined ? 'cold' : formatBytes(settings.targetBytes),
    bytes(split.resident),
    bytes(split.filled),
    bytes(split.shared),
    bytes(split.patched),
    bytes(split.packed),
    bytes(split.whole),
    bytes(split.swapped),
    `${formatBytes(savedBytes)} (${(100 * savedShare).toFixed(1)} %)`,
    pager?.reason ?? '',
  ])
  const head = ['guest', 'domain', 'target', 'resident', 'filled', 'shared', 'patched', 'compressed', 'whole']
  return [
    table([[...head, 'swapped', 'saved', ''], ...rows], columns),
    '',
    store
      ? `the store takes ${formatBytes(store.poolBytes)} for pages, ${formatBytes(store.bookBytes)} for its books and ${formatBytes(store.swapBytes)} of swap`
      : '',
    error,
  ]
    .join('\n')
    .trimEnd()
}
