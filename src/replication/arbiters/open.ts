/**
 * Opens the arbiter that a specification names: `file:/path/of/directory`, or `etcd:` and the addresses of the members,
 * `etcd:https://h1:2379,https://h2:2379`. The specification stands in argv, status and logs, so it never holds a secret:
 * those come from files, and etcd's password may come from the environment. Opening asks nobody anything.
 */
import { setting } from '../../environment.ts'
import { SubpageError } from '../../errors.ts'
import type { Arbiter } from '../arbiter.ts'
import { EtcdArbiter } from './etcd.ts'
import { readSecret } from './etcd-gateway.ts'
import { FileArbiter } from './file.ts'

export interface ArbiterOptions {
  /** A call takes no longer than that. Default 3 s. */
  limitMs?: number
  /** etcd: one member is waited for that long before the next. Default 1 s; less if else not all would have a turn. */
  attemptMs?: number
  /** etcd: before every key. Default `/subpage/`. */
  prefix?: string
  /** etcd over https, PEM files: the servers' authority (default: those of the system), our certificate and its key. */
  caFile?: string
  certFile?: string
  keyFile?: string
  user?: string
  /** Default: the environment variable SUBPAGE_ETCD_PASSWORD. */
  passwordFile?: string
}

const passwordVariable = 'SUBPAGE_ETCD_PASSWORD'

/** @throws SubpageError BAD_ARGUMENT; the specification is not repeated, lest it holds a password */
export function openArbiter(spec: string, options: ArbiterOptions = {}): Arbiter {
  if (spec.startsWith('file:')) return openFile(spec.slice('file:'.length), options)
  if (spec.startsWith('etcd:')) return openEtcd(spec.slice('etcd:'.length), options)
  throw wrong('write file:/path/of/directory or etcd:https://HOST:2379')
}

function openFile(root: string, { limitMs, ...rest }: ArbiterOptions): Arbiter {
  const foreign = Object.entries(rest).find(([, value]) => value !== undefined)
  if (foreign) throw wrong(`${foreign[0]} is for etcd, not for a file`)
  return new FileArbiter(root, limitMs === undefined ? {} : { limitMs })
}

function openEtcd(addresses: string, options: ArbiterOptions): Arbiter {
  const endpoints = addresses.split(',').map(endpoint)
  const { prefix = '/subpage/', limitMs = 3_000, passwordFile, ...rest } = options
  const { attemptMs = Math.min(1_000, limitMs / (endpoints.length + 1)) } = options
  if (!/^\/(?:[\w.-]+\/)*$/.test(prefix)) throw wrong('the prefix must begin and end with a slash')
  if ((rest.certFile === undefined) !== (rest.keyFile === undefined))
    throw wrong('a certificate needs its key, and a key its certificate')
  if (rest.user === undefined) {
    if (passwordFile !== undefined) throw wrong('a password needs a user')
    return new EtcdArbiter({ ...rest, endpoints, prefix, limitMs, attemptMs })
  }
  const open = endpoints.find(({ protocol, hostname }) => protocol === 'http:' && !isLoopback(hostname))
  if (open) throw wrong(`a password would go to ${open.host} in the clear: use https`)
  const password = () => readPassword(passwordFile)
  return new EtcdArbiter({ ...rest, endpoints, prefix, limitMs, attemptMs, password })
}

function endpoint(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url?.username || url?.password)
    throw wrong(`an address must not hold a password; name the user apart, and see ${passwordVariable}`)
  if (!url || !/^https?:$/.test(url.protocol) || url.pathname !== '/' || url.search || url.hash)
    throw wrong('each member of etcd is written https://HOST:PORT, and they are separated by commas')
  return url
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(host)
}

function readPassword(file: string | undefined): string {
  const password =
    file === undefined ? setting(passwordVariable) : readSecret(file, 'password').replace(/\r?\n$/, '')
  if (!password) throw wrong(`a user needs a password: in a file of its own, or in ${passwordVariable}`)
  return password
}

function wrong(why: string): SubpageError {
  return new SubpageError('BAD_ARGUMENT', `the arbiter cannot be opened: ${why}`)
}
