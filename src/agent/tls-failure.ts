/** What went wrong in a TLS handshake, in words that say what to do. Codes: OpenSSL's X509_V_ERR_* and Node's. */
import { errorCode, SubpageError } from '../errors.ts'

const certificateReasons: Record<string, string> = {
  CERT_HAS_EXPIRED: 'certificate has expired; renew it with subpage cert host',
  CERT_NOT_YET_VALID: 'certificate is not valid yet; compare the clocks of both hosts',
  INVALID_PURPOSE: 'certificate is not made for this use; it needs serverAuth and clientAuth',
  ERR_TLS_CERT_ALTNAME_INVALID:
    'certificate is for another host; make one with subpage cert host NAME --address ADDRESS',
}
const otherCa = 'certificate is not of the CA that is trusted here (--tls-ca)'

const protocolReasons: Record<string, string> = {
  ERR_SSL_UNSUPPORTED_PROTOCOL: 'it does not speak TLS 1.3',
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: 'it does not speak TLS 1.3',
  ERR_SSL_WRONG_VERSION_NUMBER:
    'it does not speak TLS; start its agent with --tls-ca, --tls-cert and --tls-key',
  ERR_SSL_PACKET_LENGTH_TOO_LONG:
    'it does not speak TLS; start its agent with --tls-ca, --tls-cert and --tls-key',
}

/** Of a certificate that was shown but not accepted. */
export function certificateFailure(code: string): SubpageError {
  return new SubpageError('AUTH_REFUSED', `its ${certificateReasons[code] ?? `${otherCa}: ${code}`}`)
}

/** Of a handshake that broke off. */
export function handshakeFailure(cause: unknown): SubpageError | undefined {
  const code = errorCode(cause)
  if (code === undefined) return undefined
  if (Object.hasOwn(protocolReasons, code))
    return new SubpageError('AUTH_REFUSED', protocolReasons[code] ?? '', { cause })
  if (/^(ERR_SSL|ERR_TLS_HANDSHAKE|EPROTO)/.test(code))
    return new SubpageError('AUTH_REFUSED', `the TLS handshake failed (${code})`, { cause })
  if (/CERT|SIGNATURE|PURPOSE|ISSUER|CRL|HOSTNAME/.test(code)) return certificateFailure(code)
  return undefined
}
