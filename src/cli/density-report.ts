/** The table of `density analyze`, after Table 1 of the Difference Engine: what each technique leaves, one after the other. */
import type { Survey } from '../density/survey.ts'
import { pageBytes } from '../memory/page.ts'
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
  const images = survey.images.length === 1 ? '1 image' : `${survey.images.length} images`
  return [
    `${images}, ${survey.pages} pages, ${formatBytes(whole)}`,
    '',
    table([['technique', 'pages', 'saves', 'leaves', 'saved so far', ''], ...rows]),
    '',
    table([
      ['blocks of unique pages', 'zero', 'repeated'],
      ...survey.blocks.map((block) => [
        `${block.blockBytes} bytes`,
        percent(block.zeroShare, 1),
        percent(block.repeatedShare, 1),
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
  const passes = survey.passes === 1 ? '' : ` (${survey.passes} passes)`
  return `identical pages found at ${rate(share)}${passes}, with patches ${rate(share + patch)}, with compression ${rate(share + patch + pack)}`
}
