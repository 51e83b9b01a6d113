/** The plots of the study of amplification, and what they share with its tables. */
import type { Bars, LineChart } from 'subpage/report/chart'
import type { Headline, Lengths, Measured } from './study.ts'

export interface Result {
  measured: Measured[]
  headline: Headline[]
}

export const paperShare = 0.35
/** That the paper measured. */
export const paperWorkloads = 30
export const paperXorRleGain = 1.8

export const percent = (share: number) => (Number.isFinite(share) ? `${Math.round(100 * share)} %` : '–')
export const length = (ms: number) => (ms >= 1000 ? `${ms / 1000} s` : `${ms} ms`)

export const lengthsOf = ({ headline }: Result) => headline.map(({ epochMs }) => epochMs)
/** The one to tell of where there is room for one. */
export const chosenLength = (result: Result) => (lengthsOf(result).includes(10) ? 10 : lengthsOf(result)[0]!)
export const at = ({ lengths }: Measured, epochMs: number): Lengths | undefined =>
  lengths.find((one) => one.epochMs === epochMs)

/** The workloads with the largest factor first. */
export function amplificationBars(result: Result): Bars {
  const lengths = lengthsOf(result)
  const order = (one: Measured) => at(one, 10)?.amplification ?? at(one, lengths[0]!)?.amplification ?? 0
  return {
    kind: 'bars',
    layout: 'grouped',
    name: 'amplification-by-workload',
    title: 'Amplification by workload',
    meaning:
      'How many times more bytes the pages have in which something changed than the lines that changed. The longer an epoch, the more of a page has changed by its end.',
    value: { label: 'amplification', unit: 'ratio', from: 0, to: 64 },
    series: lengths.map(length),
    rows: [...result.measured]
      .sort((a, b) => order(b) - order(a))
      .map((one) => ({
        name: one.name,
        values: lengths.map((epochMs) => at(one, epochMs)?.amplification ?? Number.NaN),
        ...(one.missing !== undefined && { note: one.missing.slice(0, 80) }),
      })),
    marks: [{ axis: 'x', at: 10, label: '10×' }],
  }
}

export function distribution(result: Result): LineChart {
  return {
    kind: 'line',
    style: 'step',
    name: 'distribution',
    title: 'Workloads by amplification',
    meaning: `The share of workloads whose amplification is at least so high. The paper found more than ${percent(paperShare)} above 10×.`,
    x: { label: 'amplification', unit: 'ratio', scale: 'log', from: 1, to: 64 },
    y: { label: 'share of workloads', unit: 'share', from: 0, to: 1 },
    series: lengthsOf(result).map((epochMs) => {
      const values = result.measured
        .filter(({ inGuest }) => !inGuest)
        .flatMap((one) => at(one, epochMs)?.amplification ?? [])
        .sort((a, b) => a - b)
      return {
        name: length(epochMs),
        points: [
          [1, 1] as const,
          ...values.map((value, i) => [value, (values.length - 1 - i) / values.length] as const),
          [64, 0] as const,
        ],
      }
    }),
    marks: [
      { axis: 'x', at: 10, label: '10×' },
      { axis: 'y', at: paperShare, label: 'the paper' },
    ],
  }
}

export function gainBars(result: Result): Bars {
  const epochMs = chosenLength(result)
  const gains = (of: Lengths | undefined) =>
    [
      of?.xorRleGain,
      of?.maskedGain,
      of?.maskedGain && of.dictionaryGain && of.maskedGain * of.dictionaryGain,
    ].map((gain) => gain ?? Number.NaN)
  return {
    kind: 'bars',
    layout: 'grouped',
    name: 'gain-by-workload',
    title: `What encoding saves, epochs of ${length(epochMs)}`,
    meaning:
      'How many times fewer bytes are sent than whole changed lines have: by XOR with the former content and run lengths, by the masked codec, and by that with the dictionary of lines.',
    value: { label: 'gain', unit: 'ratio', scale: 'log', from: 1 },
    series: ['xor-rle', 'masked', 'masked + dictionary'],
    rows: result.measured
      .filter(({ missing }) => missing === undefined)
      .map((one) => ({ name: one.name, values: gains(at(one, epochMs)) }))
      .sort((a, b) => (b.values[1] || 0) - (a.values[1] || 0)),
    marks: [{ axis: 'x', at: paperXorRleGain, label: 'the paper' }],
  }
}
