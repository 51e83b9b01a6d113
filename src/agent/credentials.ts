/**
 * The certificate of this host, its key, and the CA whose hosts are trusted. The files are looked at again with each
 * connection, so a renewed certificate needs no restart.
 */
import { X509Certificate } from 'node:crypto'
import { statSync } from 'node:fs'
import { createSecureContext, type PeerCertificate } from 'node:tls'
import { SubpageError } from '../errors.ts'
import { readInput } from '../input-file.ts'
import { readSecretFile } from './secret-file.ts'

export interface TlsFiles {
  ca: string
  cert: string
  key: string
}

export interface Credentials {
  /** Who this host is to others: the common name in its certificate, or its first DNS name. */
  name: string
  validFrom: Date
  validTo: Date
  ca: Buffer
  cert: Buffer
  key: Buffer
}

/** @throws SubpageError BAD_ARGUMENT, SECRET_EXPOSED */
export function loadCredentials(files: TlsFiles): Credentials {
  const key = readSecretFile(files.key, 'the key')
  const [ca, cert] = [readInput(files.ca, 'the CA'), readInput(files.cert, 'the certificate')]
  let parsed: X509Certificate
  try {
    parsed = new X509Certificate(cert)
    // Refuses what belongs to another key, too; its message never quotes the key.
    createSecureContext({ ca, cert, key })
    new X509Certificate(ca)
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${files.cert}, ${files.key} and ${files.ca} are not a certificate, its key and a CA in PEM form: ${why}`,
    )
  }
  const name = nameIn(parsed.toLegacyObject())
  if (name === undefined)
    throw new SubpageError('BAD_ARGUMENT', `${files.cert} names no host: make it with subpage cert host NAME`)
  return { name, validFrom: new Date(parsed.validFrom), validTo: new Date(parsed.validTo), ca, cert, key }
}

/** Loads now, so that mistakes show at the start, and again when a file has changed; while that fails, the old ones serve. */
export function watchCredentials(files: TlsFiles): () => Credentials {
  let current = loadCredentials(files)
  let seen = fingerprint(files)
  return () => {
    const now = fingerprint(files)
    if (now !== seen) {
      try {
        current = loadCredentials(files)
        seen = now
      } catch {
        // Half way through a renewal: the next connection looks again.
      }
    }
    return current
  }
}

function fingerprint({ ca, cert, key }: TlsFiles): string {
  return [ca, cert, key]
    .map((path) => statSync(path, { throwIfNoEntry: false }))
    .map((found) => (found ? `${found.ino} ${found.mtimeMs} ${found.size}` : '-'))
    .join()
}

/** The name of a host in its certificate; undefined when it has none that could be shown to people. */
export function nameIn(certificate: Pick<PeerCertificate, 'subject' | 'subjectaltname'>): string | undefined {
  const { CN } = certificate.subject ?? {}
  const dns = /DNS:([^,\s]+)/.exec(certificate.subjectaltname ?? '')?.[1]
  return [CN, dns].find((name) => typeof name === 'string' && /^[A-Za-z0-9][\w.-]{0,62}$/.test(name)) as
    | string
    | undefined
}
