/** Which arbiter an agent asks: the one that the operator names, or a directory that all agents of this machine see. */
import { join } from 'node:path'
import type { Arbiter } from '../replication/arbiter.ts'
import { openArbiter } from '../replication/arbiters/open.ts'
import { makePrivateDirectory } from './private-directory.ts'

export interface ArbiterFlags {
  /** `file:DIR` or `etcd:URL,…`; absent: this machine's own. */
  spec?: string
  caFile?: string
  certFile?: string
  keyFile?: string
  user?: string
  passwordFile?: string
}

export interface ArbiterChoice {
  arbiter: Arbiter
  /** Named by the operator. The machine's own serves pairs on one machine; between hosts it is seen not to be shared. */
  chosen: boolean
}

/** @throws SubpageError BAD_ARGUMENT */
export function chooseArbiter({ spec, ...options }: ArbiterFlags, machineDirectory: string): ArbiterChoice {
  if (spec !== undefined) return { arbiter: openArbiter(spec, options), chosen: true }
  const directory = join(machineDirectory, 'arbiter')
  makePrivateDirectory(directory)
  return { arbiter: openArbiter(`file:${directory}`), chosen: false }
}
