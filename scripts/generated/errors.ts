/** docs/errors.md, from the table in src/error-table.ts. The heading of each code is its anchor: `errors.md#guest_unknown`. */
import { type ErrorCode, errorTable, exitStatus } from '../../src/errors.ts'

const statusMeaning: Record<keyof typeof exitStatus, string> = {
  ok: 'Done.',
  failed: 'Failed; the message says why.',
  usage: 'The command line or the request has a wrong form.',
  degraded: 'Works, but with less than was asked for.',
  notProtected: 'No standby could take over.',
  notFound: 'There is nothing of this name.',
  heldElsewhere: 'Another process or host holds it.',
  refused: 'Refused: not authorised.',
  lacksFeature: 'This host lacks something; `subpage check` says what.',
  interrupted: 'Interrupted by a signal.',
}

export function renderErrors(): string {
  const codes = (Object.keys(errorTable) as ErrorCode[]).sort()
  return `<!-- Generated from src/error-table.ts by \`npm run generate\`: change it there. -->

# Errors

Every failure that subpage foresees has a code. The command line prints it with a message and ends with the exit status; the
HTTP API answers with the HTTP status and \`{"code", "message"}\`.

| Code | Exit | HTTP |
|---|---:|---:|
${codes.map((code) => `| [${code}](#${code.toLowerCase()}) | ${errorTable[code].exit} | ${errorTable[code].http} |`).join('\n')}

${codes.map(section).join('\n')}
## Exit statuses

| Status | Name | Meaning |
|---:|---|---|
${Object.entries(exitStatus)
  .map(([name, status]) => `| ${status} | ${name} | ${statusMeaning[name as keyof typeof exitStatus]} |`)
  .join('\n')}
`
}

function section(code: ErrorCode): string {
  const { meaning, remedy, exit, http } = errorTable[code]
  return `## ${code}

${meaning} Exit status ${exit}, HTTP status ${http}.

**What to do:** ${remedy}
`
}
