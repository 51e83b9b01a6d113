/**
 * Makes a CA and certificates of hosts, for those who have none: ECDSA P-256, X.509 v3 (RFC 5280). A host certificate is
 * for both sides of a connection; its common name is the host's name in status and events.
 */
import 'reflect-metadata'
import { createPrivateKey, type KeyObject, randomBytes, webcrypto, X509Certificate } from 'node:crypto'
import { existsSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'
import * as x509 from '@peculiar/x509'
import { SubpageError } from '../errors.ts'
import { readInput } from '../input-file.ts'
import { checkOutput, makeOutputFolder, writeOutput } from '../output-file.ts'
import { readSecretFile } from './secret-file.ts'

x509.cryptoProvider.set(webcrypto)

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const dayMs = 86_400_000
/** Clocks of two hosts differ a little. */
const skewMs = 5 * 60_000

export interface CertificateFiles {
  cert: string
  key: string
  /** The CA's certificate beside it. */
  ca: string
  validTo: Date
}

export interface Validity {
  days: number
  /** First day; now unless a test says otherwise. */
  from?: Date
}

/** Writes ca.crt and ca.key. @throws SubpageError FILE_EXISTS */
export async function makeCa(
  directory: string,
  // Certificates go by the wall clock.
  { days, from = new Date() }: Validity,
  force = false,
): Promise<CertificateFiles> {
  const files = { cert: join(directory, 'ca.crt'), key: join(directory, 'ca.key') }
  refuseToOverwrite(directory, [files.cert, files.key], force)
  const keys = await makeKeys()
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    // Two CAs of one name would be taken for each other.
    name: [{ CN: [`subpage CA ${randomBytes(4).toString('hex')}`] }],
    ...span(days, from),
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  await save(files, certificate, keys)
  return { ...files, ca: files.cert, validTo: certificate.notAfter }
}

export interface HostRequest {
  name: string
  /** IP addresses and DNS names by which other hosts reach it, beside its name. */
  addresses: string[]
  caDirectory: string
  directory: string
}

/** Writes NAME.crt and NAME.key, and ca.crt beside them. @throws SubpageError FILE_EXISTS, BAD_ARGUMENT, SECRET_EXPOSED */
export async function makeHostCertificate(
  { name, addresses, caDirectory, directory }: HostRequest,
  // Certificates go by the wall clock.
  { days, from = new Date() }: Validity,
  force = false,
): Promise<CertificateFiles> {
  if (!/^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$/.test(name) || name === 'ca')
    throw new SubpageError(
      'BAD_ARGUMENT',
      `"${name}" cannot be the name of a host: letters, digits, dots and dashes`,
    )
  const ca = await loadCa(caDirectory)
  const files = { cert: join(directory, `${name}.crt`), key: join(directory, `${name}.key`) }
  const names = [...new Set([name, ...addresses])].map(alternativeName)
  refuseToOverwrite(directory, [files.cert, files.key], force)
  const keys = await makeKeys()
  const wanted = span(days, from)
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serial(),
    subject: [{ CN: [name] }],
    issuer: ca.certificate.subjectName,
    notBefore: wanted.notBefore,
    // It is worth nothing longer than its CA.
    notAfter: new Date(Math.min(Number(wanted.notAfter), Number(ca.certificate.notAfter))),
    publicKey: keys.publicKey,
    signingKey: ca.key,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([
        x509.ExtendedKeyUsage.serverAuth,
        x509.ExtendedKeyUsage.clientAuth,
      ]),
      new x509.SubjectAlternativeNameExtension(names),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(ca.certificate),
    ],
  })
  await save(files, certificate, keys)
  const besides = join(directory, 'ca.crt')
  if (!existsSync(besides) || force) replace(besides, ca.pem, 0o644)
  return { ...files, ca: besides, validTo: certificate.notAfter }
}

type KeyPair = webcrypto.CryptoKeyPair

async function makeKeys(): Promise<KeyPair> {
  return (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as KeyPair
}

/** Positive, so its first bit is 0; 15 random bytes. */
const serial = () => `01${randomBytes(15).toString('hex')}`

const span = (days: number, from: Date) => ({
  notBefore: new Date(Number(from) - skewMs),
  notAfter: new Date(Number(from) + days * dayMs),
})

function alternativeName(address: string): { type: 'ip' | 'dns'; value: string } {
  if (isIP(address)) return { type: 'ip', value: address }
  if (!/^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(address))
    throw new SubpageError('BAD_ARGUMENT', `"${address}" is neither an IP address nor a DNS name`)
  return { type: 'dns', value: address }
}

async function loadCa(directory: string) {
  const [cert, key] = [join(directory, 'ca.crt'), join(directory, 'ca.key')]
  if (!existsSync(cert) || !existsSync(key))
    throw new SubpageError(
      'BAD_ARGUMENT',
      `there is no ca.crt with its ca.key in ${directory}: make them with subpage cert ca --out ${directory}`,
    )
  const pem = readInput(cert).toString()
  try {
    assertUsable(
      new X509Certificate(pem),
      createPrivateKey(readSecretFile(key, 'the key of the CA')),
      directory,
    )
    const der = x509.PemConverter.decodeFirst(readSecretFile(key, 'the key of the CA').toString())
    const certificate = new x509.X509Certificate(pem)
    return {
      pem,
      certificate,
      key: await webcrypto.subtle.importKey('pkcs8', der, algorithm, false, ['sign']),
    }
  } catch (cause) {
    if (cause instanceof SubpageError) throw cause
    throw new SubpageError('BAD_ARGUMENT', `${cert} and ${key} are not a CA made by subpage cert ca`, {
      cause,
    })
  }
}

/** What it signs would be worth nothing otherwise, which shows only when two hosts meet. */
function assertUsable(ca: X509Certificate, key: KeyObject, directory: string): void {
  const refuse = (why: string) => {
    throw new SubpageError('BAD_ARGUMENT', `ca.crt in ${directory} ${why}`)
  }
  if (!ca.ca) refuse('is no certificate of a CA: name the folder that subpage cert ca has made')
  if (!ca.checkPrivateKey(key)) refuse('and ca.key beside it do not belong together: they are of two CAs')
  // Certificates go by the wall clock.
  if (Date.parse(ca.validTo) < Date.now()) refuse(`has expired on ${ca.validTo}: make another CA`)
}

/** Before any key is made. */
function refuseToOverwrite(directory: string, paths: string[], force: boolean): void {
  const existing = paths.find((path) => existsSync(path))
  if (existing !== undefined && !force)
    throw new SubpageError(
      'FILE_EXISTS',
      `${existing} exists; hosts may depend on it. Choose another --out, or give --force to replace it`,
    )
  makeOutputFolder(directory, 0o700)
  for (const path of paths) checkOutput(path, { replace: force, mode: 0o600 })
}

async function save(
  { cert, key }: { cert: string; key: string },
  certificate: x509.X509Certificate,
  { privateKey }: KeyPair,
): Promise<void> {
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', privateKey)
  replace(key, `${x509.PemConverter.encode(pkcs8, 'PRIVATE KEY')}\n`, 0o600)
  replace(cert, `${certificate.toString('pem')}\n`, 0o644)
}

/** An agent that reads meanwhile finds the old file or the new one, and the mode is right from the start. */
const replace = (path: string, content: string, mode: number) =>
  writeOutput(path, content, { replace: true, mode })
