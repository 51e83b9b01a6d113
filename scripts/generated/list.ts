/** The generated files: one entry each. test/generated.test.ts holds that they are what the code says. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from '../../src/memory/native.ts'
import { renderCli } from './cli.ts'
import { renderConfig } from './config.ts'
import { renderErrors } from './errors.ts'
import { renderLimits } from './limits.ts'
import { manPages } from './man.ts'
import { renderMetrics } from './metrics.ts'
import { renderOpenApi } from './openapi.ts'
import { protocolPath, renderProtocol } from './states.ts'

export interface GeneratedFile {
  /** Relative to the repository. */
  path: string
  /** The whole text; the same at every call. */
  render(): string
}

export const generated: GeneratedFile[] = [
  { path: 'docs/cli.md', render: renderCli },
  { path: 'docs/errors.md', render: renderErrors },
  { path: 'docs/limits.md', render: renderLimits },
  { path: 'docs/metrics.md', render: renderMetrics },
  { path: 'docs/openapi.json', render: renderOpenApi },
  { path: protocolPath, render: renderProtocol },
  { path: 'packaging/agent.toml', render: renderConfig },
  ...manPages,
]

export const absolute = ({ path }: GeneratedFile): string => join(packageRoot, path)

export function isCurrent(file: GeneratedFile): boolean {
  return existsSync(absolute(file)) && readFileSync(absolute(file), 'utf8') === file.render()
}
