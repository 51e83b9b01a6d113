/**
 * What a guest sees of the processor that it runs on. A state that was saved on one loads on another, and the guest goes on with
 * instructions that are not there: QEMU does not compare them. `-cpu host` and libvirt's host-model are another one on each kind of host.
 */
import { createHash } from 'node:crypto'
import type { Qmp } from './qmp.ts'

interface Cpu {
  'qom-path': string
}

/** One word of CPUID: `features` is 32 or 64 bits. */
interface FeatureWord {
  'cpuid-input-eax': number
  'cpuid-input-ecx'?: number
  'cpuid-register': string
  features: number
}

/** What the words for one begin with. */
export const processorPart = 'processor '

const numbers = ['family', 'model', 'stepping'] as const

/** For people, and equal on two hosts only if it is the same to the guest; undefined: this machine has none. */
export async function processorOf(qmp: Qmp): Promise<string | undefined> {
  const [cpu] = await qmp.run<Cpu[]>('query-cpus-fast')
  if (!cpu) return undefined
  const get = (property: string) => ({
    execute: 'qom-get',
    arguments: { path: cpu['qom-path'], property },
  })
  const asked = ['type', 'vendor', ...numbers, 'feature-words'].map(get)
  const [type, vendor, family, model, stepping, words] = (await Promise.all(qmp.pipeline(asked))) as [
    string,
    string,
    number,
    number,
    number,
    FeatureWord[],
  ]
  const features = createHash('sha256').update(JSON.stringify(words)).digest('hex').slice(0, 8)
  const name = type.replace(/-x86_64-cpu$/, '')
  return `${processorPart}${name} (${vendor} ${family}/${model}/${stepping}, features ${features})`
}
