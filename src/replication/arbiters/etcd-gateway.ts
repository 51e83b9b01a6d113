/**
 * Asks an etcd cluster through its JSON gateway (gRPC-gateway, etcd 3.4 and later), over node's own HTTP client. The
 * endpoints are tried in turn, again and again, until one answers or nobody waits any more. A request may therefore be
 * carried out more than once, or late: every caller sends only what can be repeated.
 *
 * Key, certificate and password files are read with each request, so a renewed certificate needs no restart, and a secret
 * is in memory only while it is used.
 */
import { statSync } from 'node:fs'
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { setTimeout as delay } from 'node:timers/promises'
import { type Static, type TSchema, Type } from '#typebox'
import { Value } from '#typebox/value'
import { SubpageError } from '../../errors.ts'
import { readInput } from '../../input-file.ts'
import { limits } from '../../limits.ts'

export interface EtcdGatewayOptions {
  /** http or https, without path or credentials. */
  endpoints: URL[]
  /** PEM files: the authority of the servers; our certificate and its key, where the servers ask for one. */
  caFile?: string
  certFile?: string
  keyFile?: string
  user?: string
  password?: () => string
  /** One endpoint is waited for that long before the next is tried. */
  attemptMs: number
}

/** Pause after all endpoints failed: elections take a second or two. */
const roundMs = 50

const answerBytesMax = limits.arbiterAnswerBytes.value

/** gRPC status codes (grpc.github.io, statuscodes) after which the same request may succeed, here or elsewhere. */
const passing = new Map([
  [1, 'cancelled'],
  [2, 'unknown'],
  [4, 'deadline exceeded'],
  [8, 'resource exhausted'],
  [10, 'aborted'],
  [13, 'internal'],
  [14, 'unavailable'],
])
const permissionDenied = 7
const unauthenticated = 16

const Failure = Type.Object({
  code: Type.Integer(),
  message: Type.Optional(Type.String()),
  error: Type.Optional(Type.String()),
})
const Authenticated = Type.Object({ token: Type.String() })

interface Answer {
  status: number
  body: string
}

/** etcd answered, and would answer the same again. */
class Refused extends Error {
  readonly code: number
  constructor(message: string, code: number) {
    super(message)
    this.code = code
  }
}

export class EtcdGateway {
  readonly description: string
  readonly #options: EtcdGatewayOptions
  readonly #http = new HttpAgent({ keepAlive: true })
  readonly #https = new HttpsAgent({ keepAlive: true })
  /** Why each endpoint failed last; one that answered is not in here. */
  readonly #failures = new Map<string, Error>()
  /** Index of the endpoint that answered last. */
  #preferred = 0
  #token: string | undefined
  /** By endpoint. Checking a password costs etcd 0.1 s of processor time: calls that wait for a token share one. */
  readonly #signingIn = new Map<string, Promise<string>>()

  constructor(options: EtcdGatewayOptions) {
    this.#options = options
    this.description = `etcd ${options.endpoints.map(({ origin }) => origin).join(',')}`
    // Files that are missing or open to all are found out now, not when the link is cut.
    this.#tls()
    if (options.user !== undefined) options.password?.()
  }

  /**
   * @param givenUp ends the attempts; until then they go on
   * @throws SubpageError ARBITER_UNREACHABLE when etcd refuses; the signal's reason
   */
  async ask<T extends TSchema>(
    path: string,
    body: unknown,
    schema: T,
    givenUp: AbortSignal,
  ): Promise<Static<T>> {
    const { endpoints } = this.#options
    const first = this.#preferred
    for (let attempt = 0; ; attempt++) {
      const index = (first + attempt) % endpoints.length
      const endpoint = endpoints[index]!
      try {
        const answer = await this.#askOne(endpoint, path, body, schema, givenUp)
        this.#preferred = index
        this.#failures.delete(endpoint.origin)
        return answer
      } catch (error) {
        givenUp.throwIfAborted()
        if (error instanceof Refused)
          throw new SubpageError('ARBITER_UNREACHABLE', `${endpoint.origin} refuses: ${error.message}`, {
            cause: error,
          })
        // A file that cannot be read just now counts too: it may be under renewal.
        this.#failures.set(endpoint.origin, error as Error)
      }
      if ((attempt + 1) % endpoints.length === 0) await delay(roundMs, undefined, { signal: givenUp })
    }
  }

  /** What the endpoints failed with, for the message when time is up. */
  expired(limitMs: number): SubpageError {
    const failures = [...this.#failures]
    const why = failures.map(([origin, { message }]) => `${origin}: ${message}`).join('; ')
    return new SubpageError(
      'ARBITER_UNREACHABLE',
      `etcd gave no answer within ${limitMs / 1000} s${why && ` (${why})`}`,
      { cause: new AggregateError(failures.map(([, error]) => error)) },
    )
  }

  close(): void {
    this.#http.destroy()
    this.#https.destroy()
    this.#token = undefined
  }

  async #askOne<T extends TSchema>(
    endpoint: URL,
    path: string,
    body: unknown,
    schema: T,
    givenUp: AbortSignal,
  ): Promise<Static<T>> {
    if (this.#options.user === undefined)
      return read(await this.#post(endpoint, path, body, undefined, givenUp), schema)
    const known = this.#token
    const token = known ?? (await this.#signIn(endpoint))
    try {
      return read(await this.#post(endpoint, path, body, token, givenUp), schema)
    } catch (error) {
      if (!(error instanceof Refused) || !isStale(error)) throw error
      if (this.#token === token) this.#token = undefined
      // A token that was made just now may not be known to this member yet: that passes.
      if (known === undefined) throw new Error(error.message)
      const renewed = this.#token ?? (await this.#signIn(endpoint))
      return read(await this.#post(endpoint, path, body, renewed, givenUp), schema)
    }
  }

  #signIn(endpoint: URL): Promise<string> {
    const underWay = this.#signingIn.get(endpoint.origin)
    if (underWay) return underWay
    const signIn = async () => {
      const { user, password } = this.#options
      const credentials = { name: user, password: password?.() }
      const answer = await this.#post(endpoint, '/v3/auth/authenticate', credentials)
      this.#token = read(answer, Authenticated).token
      return this.#token
    }
    const signingIn = signIn().finally(() => this.#signingIn.delete(endpoint.origin))
    this.#signingIn.set(endpoint.origin, signingIn)
    return signingIn
  }

  /** One request to one endpoint; no redirects. */
  #post(endpoint: URL, path: string, body: unknown, token?: string, givenUp?: AbortSignal): Promise<Answer> {
    const { attemptMs } = this.#options
    const text = Buffer.from(JSON.stringify(body))
    const headers = {
      'content-type': 'application/json',
      'content-length': text.length,
      ...(token === undefined ? {} : { authorization: token }),
    }
    const secure = endpoint.protocol === 'https:'
    const agent = secure ? this.#https : this.#http
    const options = { method: 'POST', headers, agent, ...(givenUp ? { signal: givenUp } : {}) }
    return new Promise((resolve, reject) => {
      const url = new URL(path, endpoint)
      const request = secure ? httpsRequest(url, { ...options, ...this.#tls() }) : httpRequest(url, options)
      const timer = setTimeout(
        () => request.destroy(new Error(`no answer within ${attemptMs} ms`)),
        attemptMs,
      )
      request.on('close', () => clearTimeout(timer))
      request.on('error', reject)
      request.on('response', (response) => void collect(response).then(resolve, reject))
      request.end(text)
    })
  }

  #tls() {
    const { caFile, certFile, keyFile } = this.#options
    return {
      rejectUnauthorized: true,
      ...(caFile === undefined ? {} : { ca: readInput(caFile, 'the CA certificate for etcd') }),
      ...(certFile === undefined ? {} : { cert: readInput(certFile, 'the certificate for etcd') }),
      ...(keyFile === undefined ? {} : { key: readSecret(keyFile, 'key') }),
    }
  }
}

async function collect(response: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > answerBytesMax) throw new Error('the answer is too long')
    chunks.push(chunk)
  }
  return { status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString('utf8') }
}

/** @throws Refused when etcd said no for good; Error when another attempt may do better */
function read<T extends TSchema>({ status, body }: Answer, schema: T): Static<T> {
  const stranger = new Error(`HTTP status ${status}, and no answer of etcd 3.4 or later`)
  // etcd says this one in plain text: the gateway would pass the server's own name on, not the client's.
  if (status === 400 && body.startsWith('CommonName of client'))
    throw new Refused(
      'with users enabled its gateway takes no client certificate that has a common name (CN); issue one without',
      permissionDenied,
    )
  let answer: unknown
  try {
    answer = JSON.parse(body)
  } catch {
    // Something else than etcd's gateway listens there; the status says more than the parser.
    throw stranger
  }
  if (status === 200 && Value.Check(schema, answer)) return Value.Parse(schema, answer)
  if (status === 200 || !Value.Check(Failure, answer)) throw stranger
  const message = answer.message ?? answer.error ?? passing.get(answer.code) ?? `gRPC code ${answer.code}`
  if (passing.has(answer.code)) throw new Error(message)
  throw new Refused(message, answer.code)
}

/** The token expired, its member restarted, or users were changed since it was given. */
function isStale({ code, message }: Refused): boolean {
  return code === unauthenticated || /invalid auth token|revision of auth store is old/.test(message)
}

/** @throws SubpageError BAD_ARGUMENT, also when others than owner and group may read it */
export function readSecret(path: string, what: string): string {
  const text = readInput(path, `the ${what} for etcd`).toString()
  if ((statSync(path).mode & 0o007) !== 0)
    throw new SubpageError('BAD_ARGUMENT', `everybody may read the ${what} in ${path}: chmod o= ${path}`)
  return text
}
