/**
 * The screen of a guest: where people reach it (VNC), and what is on it. Each host has its own VNC server, in QEMU; the one of the host
 * where the guest runs shows it, with the certificate of that host. Facts of QEMU, checked on 7.2: a standby's server listens and
 * shows nothing; passwords are compared by their first 8 characters (RFC 6143, 7.2.2); certificates are read from a directory, by fixed names.
 */
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { isIPv6 } from 'node:net'
import { join } from 'node:path'
import { type Static, Type } from '#typebox'
import { SubpageError } from '../errors.ts'
import { doubleCommas } from './option-syntax.ts'
import type { Qmp } from './qmp.ts'

/** Of this machine alone, or all of the host's: another host has no address of this one. */
const addresses = ['127.0.0.1', '::1', '0.0.0.0', '::'] as const
const displayMax = 99
const passwordLengthMax = 8
const passwordForm = /^[!-~]{1,8}$/

const shown = {
  address: Type.Enum([...addresses]),
  /** Without a number the first that is free. */
  display: Type.Optional(Type.Integer({ minimum: 0, maximum: displayMax })),
  password: Type.Optional(Type.String({ pattern: passwordForm.source })),
}

/** As it is asked for, and as a primary describes it. */
export const Vnc = Type.Object(
  {
    ...shown,
    /** Encrypted (VeNCrypt), with the certificate of the host that shows it. */
    tls: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
)
export type Vnc = Static<typeof Vnc>

const Certificate = Type.Object({ ca: Type.String(), cert: Type.String(), key: Type.String() })
/** Files of a host, in PEM form. */
export type Certificate = Static<typeof Certificate>

/** Of one host. */
export const Screen = Type.Object({ ...shown, certificate: Type.Optional(Certificate) })
export type Screen = Static<typeof Screen>

/**
 * @param certificate of this host, by which other hosts know it
 * @throws SubpageError BAD_ARGUMENT: a screen that a network sees asks for a password, and encryption for a certificate
 */
export function screenOf({ tls, ...shown }: Vnc, certificate: Certificate | undefined): Screen {
  assertGuarded(shown)
  if (!tls) return shown
  if (!certificate)
    throw new SubpageError(
      'BAD_ARGUMENT',
      'its screen is to be encrypted with the certificate of the host, and this agent has none: it needs --tls-ca, --tls-cert and --tls-key',
    )
  return { ...shown, certificate: { ca: certificate.ca, cert: certificate.cert, key: certificate.key } }
}

/** What another host is told of it. */
export function vncOf({ certificate, ...shown }: Screen): Vnc {
  return { ...shown, ...(certificate && { tls: true }) }
}

/** @param given [ADDRESS:]DISPLAY or [ADDRESS:]auto @throws SubpageError BAD_ARGUMENT */
export function parseVnc(given: string): Vnc {
  const [, address = '127.0.0.1', display = ''] = /^(?:\[?([^\]]*?)\]?:)?(\d{1,2}|auto)$/.exec(given) ?? []
  const known = addresses.find((one) => one === address)
  if (display === '' || known === undefined)
    throw new SubpageError(
      'BAD_ARGUMENT',
      `"${given}" is no display: write auto or a number up to ${displayMax}, and before it, with a colon, ${addresses.join(', ')} if not this machine alone`,
    )
  return { address: known, ...(display !== 'auto' && { display: Number(display) }) }
}

/** @param file where it was read @throws SubpageError BAD_ARGUMENT, without the password */
export function readPassword(content: Buffer, file: string): string {
  const password = content.toString('utf8').trim()
  if (!passwordForm.test(password))
    throw new SubpageError(
      'BAD_ARGUMENT',
      `the VNC password in ${file} must have 1 to ${passwordLengthMax} printable characters, no space: the protocol takes no more`,
    )
  return password
}

function assertGuarded({ address, password }: Vnc): void {
  if ((address === '0.0.0.0' || address === '::') && password === undefined)
    throw new SubpageError(
      'BAD_ARGUMENT',
      `whoever reaches this host would have the guest's screen and keyboard: give --vnc-password-file, or leave out the address and use a tunnel (ssh -L)`,
    )
}

/** @param waiting on the host of a standby the number may be taken, and another one will do */
export function vncOptions(screen: Screen | undefined, paths: ScreenPaths, waiting: boolean): string[] {
  if (!screen) return []
  const { address, display, password, certificate } = screen
  const at = `${isIPv6(address) ? `[${address}]` : address}:${display ?? 0}`
  const search = display === undefined || waiting ? `,to=${displayMax}` : ''
  const secret = password === undefined ? '' : ',password-secret=subpage-vnc'
  const tls = certificate === undefined ? '' : ',tls-creds=subpage-vnc-tls'
  return [
    ...(password === undefined
      ? []
      : ['-object', `secret,id=subpage-vnc,format=raw,file=${doubleCommas(paths.vncSecret)}`]),
    // Viewers prove who they are by the password, not by a certificate of their own.
    ...(certificate === undefined
      ? []
      : [
          '-object',
          `tls-creds-x509,id=subpage-vnc-tls,endpoint=server,verify-peer=off,dir=${doubleCommas(paths.vncTls)}`,
        ]),
    ...['-vnc', `${at}${search}${secret}${tls}`],
  ]
}

export interface ScreenPaths {
  /** Where QEMU finds the password. */
  vncSecret: string
  /** The directory in which it finds the certificate. */
  vncTls: string
}

/** What QEMU reads when it starts. */
export function writeScreenFiles(
  { password, certificate }: Pick<Screen, 'password' | 'certificate'>,
  { vncSecret, vncTls }: ScreenPaths,
): void {
  if (password !== undefined) writeFileSync(vncSecret, password, { mode: 0o600, flag: 'wx' })
  if (!certificate) return
  mkdirSync(vncTls, { mode: 0o700 })
  for (const [name, file] of [
    ['ca-cert.pem', certificate.ca],
    ['server-cert.pem', certificate.cert],
    ['server-key.pem', certificate.key],
  ] as const)
    symlinkSync(file, join(vncTls, name))
}

/** After a renewal: who looks from now on sees the new certificate. */
export async function reloadCertificate(qmp: Qmp): Promise<void> {
  await qmp.run('display-reload', { type: 'vnc', 'tls-certs': true })
}

/** Devices that people see something of. */
const screens = /^(VGA|secondary-vga|bochs-display|cirrus-vga|virtio-vga|virtio-gpu|qxl)/

/** What a machine with a VNC display needs, if its options bring no screen along. */
export function screenOptions(options: readonly string[]): string[] {
  const has = options.some(
    (word, n) =>
      word === '-vga' || (options[n - 1] === '-device' && screens.test(word.replace(/^driver=/, ''))),
  )
  return has ? [] : ['-vga', 'std']
}

export interface VncAddress {
  host: string
  port: number
  encrypted: boolean
}

/** Where its VNC server listens; undefined without one. */
export async function vncAddress(qmp: Qmp): Promise<VncAddress | undefined> {
  const { enabled, host, service, auth } = await qmp.run<{
    enabled: boolean
    host?: string
    service?: string
    auth?: string
  }>('query-vnc')
  return enabled && host !== undefined
    ? { host, port: Number(service), encrypted: /\+x509\+/.test(auth ?? '') }
    : undefined
}

/** QEMU may run as another user, whose directory it is in then. */
function readOwn(path: string): Buffer {
  const file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    return readFileSync(file)
  } finally {
    closeSync(file)
  }
}

let pictures = 0

/** What is on the screen, as PNG. @throws SubpageError BAD_ARGUMENT when the guest has none */
export async function takePicture(qmp: Qmp, prefix: string): Promise<Buffer> {
  const path = `${prefix}.${++pictures}`
  try {
    await qmp.run('screendump', { filename: path, format: 'png' })
    return readOwn(path)
  } catch (error) {
    if (error instanceof Error && /no graphic|There is no|console/i.test(error.message))
      throw new SubpageError(
        'BAD_ARGUMENT',
        'the guest has no screen: start it with --vnc auto, or -- -vga std',
        {
          cause: error,
        },
      )
    throw error
  } finally {
    rmSync(path, { force: true })
  }
}
