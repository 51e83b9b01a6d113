/** The token that the API over TCP asks for: agent and clients read it from a file that nobody else can read. */
import { SubpageError } from '../errors.ts'
import { readSecretFile } from './secret-file.ts'

const tokenLengthMin = 32

/** @throws SubpageError SECRET_EXPOSED, BAD_ARGUMENT */
export function readToken(path: string, what = 'the API token'): string {
  const token = readSecretFile(path, what).toString('utf8').trim()
  // No message quotes the token.
  if (token.length < tokenLengthMin || !/^[\x21-\x7e]+$/.test(token))
    throw new SubpageError(
      'BAD_ARGUMENT',
      `${what} in ${path} must have at least ${tokenLengthMin} printable characters, in one line: openssl rand -hex 32 > ${path}`,
    )
  return token
}
