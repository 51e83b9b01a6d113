/** docs/openapi.json as tests use it: its operations, and whether an answer is one that it describes, member by member. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { packageRoot } from '../../src/memory/native.ts'

interface Media {
  schema: object
}

export interface Operation {
  operationId: string
  summary: string
  security: Record<string, never[]>[]
  parameters?: { name: string; in: string; required?: boolean; schema: object }[]
  requestBody?: { content: Record<string, Media> }
  responses: Record<string, { description: string; content?: Record<string, Media> }>
}

interface Document {
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, object> }
}

export const documentPath = join(packageRoot, 'docs/openapi.json')
export const document: Document = JSON.parse(readFileSync(documentPath, 'utf8'))

export const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({
    method: method.toUpperCase(),
    path,
    ...operation,
  })),
)

export const operationOf = (name: string) => {
  const found = operations.find(({ operationId }) => operationId === name)
  if (!found) throw new Error(`no operation ${name}`)
  return found
}

/** No member but those that are described. */
function closed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(closed)
  if (value === null || typeof value !== 'object') return value
  const all = Object.fromEntries(Object.entries(value).map(([key, member]) => [key, closed(member)]))
  const open = 'properties' in all && !('additionalProperties' in all)
  return open ? { ...all, additionalProperties: false } : all
}

const ajv = new Ajv2020({ strict: false, allErrors: true })
ajv.addSchema(closed({ ...document }) as object, 'openapi')

/** What is wrong with a value, by a schema of the document. */
export function faults(schema: object, value: unknown): string[] {
  const text = JSON.stringify(closed(schema)).replaceAll('"#/', '"openapi#/')
  const validate = ajv.compile(JSON.parse(text))
  if (validate(value)) return []
  return validate.errors!.map(
    ({ instancePath, message, params }) => `${instancePath} ${message} ${JSON.stringify(params)}`,
  )
}

/** The same, of what an operation has answered. */
export function answerFaults(name: string, value: unknown, status = 200): string[] {
  const { responses } = operationOf(name)
  const content = responses[String(status)]?.content
  const media = Object.values(content ?? {})[0]
  return media ? faults(media.schema, value) : [`${name} does not answer with ${status}`]
}
