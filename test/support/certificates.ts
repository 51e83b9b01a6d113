/** Certificates for tests: a CA in a directory, and hosts of it, as `subpage cert` makes them. */
import { join } from 'node:path'
import { makeCa, makeHostCertificate, type Validity } from '../../src/agent/certificates.ts'
import { type Credentials, loadCredentials, type TlsFiles } from '../../src/agent/credentials.ts'

export class TestCa {
  readonly directory: string

  private constructor(directory: string) {
    this.directory = directory
  }

  /** @param directory made if need be; each CA has its own */
  static async make(directory: string): Promise<TestCa> {
    await makeCa(directory, { days: 30, from: new Date(Date.now() - 20 * 86_400_000) })
    return new TestCa(directory)
  }

  /** By default a certificate that is good for 127.0.0.1. */
  async files(name: string, addresses = ['127.0.0.1'], validity: Validity = { days: 5 }): Promise<TlsFiles> {
    const directory = join(this.directory, `host-${name}`)
    return await makeHostCertificate(
      { name, addresses, caDirectory: this.directory, directory },
      validity,
      true,
    )
  }

  async credentials(...host: Parameters<TestCa['files']>): Promise<() => Credentials> {
    const credentials = loadCredentials(await this.files(...host))
    return () => credentials
  }
}

/** What an agent is started with. */
export function tlsEnvironment({ ca, cert, key }: TlsFiles): Record<string, string> {
  return { SUBPAGE_TLS_CA: ca, SUBPAGE_TLS_CERT: cert, SUBPAGE_TLS_KEY: key }
}
