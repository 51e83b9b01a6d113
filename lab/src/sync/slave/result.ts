/**
 * What an active slave saves, for people: a row for each workload and epoch length. Epochs count in which the slave ran as long as
 * the guest: on a busy host a pause that comes late makes others, which say nothing about two hosts.
 */
import type { Table } from 'subpage/report/page'
import { ascending, median, percentile, sum } from '../../report/statistics.ts'
import type { SlaveCell, SlaveEpoch } from './measure.ts'
import { type Way, ways } from './slave-cost.ts'

/** By how much processor times may differ: a share of the guest's, and what a pause takes. */
const unlikeShare = 0.2
const unlikeUs = 3000

export const alike = ({ epochs }: SlaveCell): SlaveEpoch[] =>
  epochs.filter(({ primary, slave }) => {
    const apart = Math.abs(primary.processorUs - slave.processorUs)
    return apart <= Math.max(unlikeUs, unlikeShare * primary.processorUs)
  })

/** How many times fewer bytes the epochs that count take with a slave; undefined when none does. */
export function saving(cell: SlaveCell, way: Way): number | undefined {
  const epochs = alike(cell)
  if (epochs.length === 0) return undefined
  return ratio(sum(epochs.map((one) => one.without[way])), sum(epochs.map((one) => one.with[way])))
}

/** 1 when there is nothing to send. */
const ratio = (without: number, others: number) => (without === others ? 1 : without / others)

/** The median over the workloads, each with the median over its epoch lengths; NaN when no epoch counts. */
export function middleSaving(cells: readonly SlaveCell[], way: Way): number {
  const names = [...new Set(cells.map(({ workload }) => workload))]
  const ofOne = (name: string) =>
    cells.flatMap((cell) => (cell.workload === name ? (saving(cell, way) ?? []) : []))
  return median(names.map(ofOne).flatMap((savings) => (savings.length > 0 ? median(savings) : [])))
}

export function slaveTable(cells: readonly SlaveCell[]): Table {
  return {
    name: 'active-slave',
    title: 'With an active slave: how many times fewer bytes (quartiles over the epochs)',
    heading: ['workload', 'epoch', 'epochs', 'pages changed', 'the slave has', ...ways],
    numbers: [...Array(4 + ways.length).keys()].map((i) => i + 1),
    rows: cells.map((cell) => {
      const epochs = alike(cell)
      return [
        cell.workload,
        `${cell.epochMs} ms`,
        `${epochs.length} of ${cell.epochs.length}`,
        epochs.length === 0 ? '–' : median(epochs.map(({ changedPages }) => changedPages)).toFixed(0),
        known(epochs),
        ...ways.map((way) => savingText(cell, way)),
      ]
    }),
  }
}

export const slaveMethod =
  'Two live guests: the slave begins each epoch as the checkpoint and runs as long as the guest did, and both have just loaded their devices (TCG drops translated code then); then it is corrected, and its whole memory and its devices are compared with the checkpoint. Epochs count in which both used the same processor time, to a fifth. A hash takes 8 bytes for each page that may differ, its answer a bit. Published: up to 5x (Lu, Chiueh), against whole pages, for servers whose slave is given the packets that they receive.'

/** Of the pages that the guest changed, those that the slave made the same. */
function known(epochs: readonly SlaveEpoch[]): string {
  const changed = sum(epochs.map(({ changedPages }) => changedPages))
  const differing = sum(epochs.map(({ differingPages }) => differingPages))
  return changed === 0 ? '–' : `${(100 * (1 - differing / changed)).toFixed(0)} %`
}

function savingText(cell: SlaveCell, way: Way): string {
  const all = saving(cell, way)
  if (all === undefined) return '–'
  const each = ascending(alike(cell).map((one) => ratio(one.without[way], one.with[way])))
  return `${all.toFixed(2)}x (${percentile(each, 0.25).toFixed(2)} … ${percentile(each, 0.75).toFixed(2)})`
}
