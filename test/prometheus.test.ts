/** packaging/prometheus: what promtool says of the alert rules, and whether rules and dashboard use metrics that there are. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import {
  figureMetrics,
  histogramMetrics,
  hostMetrics,
  stateMetrics,
  summaryMetrics,
} from '../src/agent/metrics-table.ts'
import { packageRoot } from '../src/package-root.ts'

const folder = join(packageRoot, 'packaging/prometheus')
const read = (file: string) => readFileSync(join(folder, file), 'utf8')

const known = new Set([
  ...[...figureMetrics, ...summaryMetrics, ...Object.values(stateMetrics), ...Object.values(hostMetrics)].map(
    ({ name }) => name,
  ),
  ...histogramMetrics.flatMap(({ name }) => ['bucket', 'sum', 'count'].map((part) => `${name}_${part}`)),
])
const used = (text: string) => [...new Set(text.match(/\bsubpage_[a-z_]+/g))]

function promtool(...args: string[]): void {
  const { status, stdout, stderr, error } = spawnSync('promtool', args, { cwd: folder, encoding: 'utf8' })
  expect(error, 'promtool (Debian: apt-get install prometheus)').toBeUndefined()
  expect({ status, said: stdout + stderr }).toMatchObject({ status: 0 })
}

test('promtool takes the alert rules, and they mean what their tests say', () => {
  promtool('check', 'rules', 'alerts.yml')
  promtool('test', 'rules', 'alerts.test.yml')
})

test.each(['alerts.yml', 'alerts.test.yml', 'grafana.json'])(
  '%s uses only metrics that there are',
  (file) => {
    const names = used(read(file))
    expect(names.length).toBeGreaterThan(3)
    expect(names.filter((name) => !known.has(name))).toEqual([])
  },
)

test('the dashboard is one that Grafana loads: panels with targets, none over another', () => {
  const { panels } = JSON.parse(read('grafana.json'))
  const taken = new Set<string>()
  for (const { targets, gridPos, datasource } of panels) {
    expect(targets.every(({ expr }: { expr: string }) => /subpage_/.test(expr))).toBe(true)
    expect(datasource).toEqual({ type: 'prometheus', uid: expect.any(String) })
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
      const cell = `${x},${gridPos.y}`
      expect(taken.has(cell)).toBe(false)
      taken.add(cell)
    }
    expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24)
  }
})
