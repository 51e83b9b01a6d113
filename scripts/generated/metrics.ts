/** docs/metrics.md, from the table in src/agent/metrics-table.ts. */
import {
  figureMetrics,
  histogramMetrics,
  hostMetrics,
  roles,
  stateMetrics,
  states,
  summaryMetrics,
} from '../../src/agent/metrics-table.ts'

interface Row {
  name: string
  type: string
  help: string
  labels: string
  from: string
}

export function renderMetrics(): string {
  const ofGuests: Row[] = [
    ...Object.entries(stateMetrics).map(([key, { name, type, help }]) => ({
      ...{ name, type, help, from: '' },
      labels: { state: 'guest, state', role: 'guest, role', reason: 'guest, code' }[key] ?? 'guest',
    })),
    ...histogramMetrics.map(({ name, help, from }) => ({
      ...{ name, help, labels: 'guest, le', type: 'histogram' },
      from: `epochs.durations.${from}`,
    })),
    ...summaryMetrics.map((metric) => ({ ...metric, labels: 'guest, quantile', type: 'summary' })),
    ...figureMetrics.map(({ name, type, help, from, labels = {} }) => ({
      ...{ name, type, help, from },
      labels: [
        'guest',
        ...(from.startsWith('disks') ? ['disk'] : []),
        ...Object.entries(labels).map(([label, value]) => `${label}="${value}"`),
      ].join(', '),
    })),
  ]
  const labelsOfHost: Record<string, string> = { build: 'host, release', guests: 'role' }
  const ofHost = Object.entries(hostMetrics).map(([key, { name, type, help }]) => ({
    ...{ name, type, help, from: '', labels: labelsOfHost[key] ?? '' },
  }))
  return `<!-- Generated from src/agent/metrics-table.ts by \`npm run generate\`: change it there. -->

# Metrics

An agent answers \`GET /metrics\` in Prometheus' text format, on its socket and, with \`--api-listen\`, over TCP for those who have the
token. Each scrape asks the supervisors of all guests, as \`subpage status\` does; the agent keeps no figures of its own. Counters of a
guest begin anew with its protection. A guest has only the figures that apply to it now.

\`\`\`yaml
scrape_configs:
  - job_name: subpage
    scheme: https
    authorization:
      credentials_file: /etc/prometheus/subpage.token
    tls_config:
      ca_file: /etc/prometheus/subpage-ca.crt
    static_configs:
      - targets: [alpha:7476, beta:7476]
\`\`\`

[packaging/prometheus](../packaging/prometheus) has alert rules, with tests, and a dashboard for Grafana.

States: ${states.join(', ')}. Roles: ${roles.join(', ')}.

## Of a host

${table(ofHost)}

## Of a guest

${table(ofGuests)}
`
}

const table = (rows: Row[]) =>
  `| metric | type | labels | what it is | in status |
|---|---|---|---|---|
${rows.map(({ name, type, labels, help, from }) => `| \`${name}\` | ${type} | ${labels} | ${help} | ${from === '' ? '' : `\`${from}\``} |`).join('\n')}`
