/** A VNC viewer, as far as the certificate of an encrypted screen (RFC 6143, 7.1; the VeNCrypt extension, version 0.2). */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { connect as encrypt } from 'node:tls'
import type { GuestStatus } from '../../src/agent/status.ts'

const veNCrypt = 19
/** TLS with a certificate, and within it the password of VNC. */
const x509Vnc = 261

/** Whose certificate it is, and which one. Nothing else is offered to who does not encrypt. */
export async function certificateShown({ vnc }: GuestStatus): Promise<{ CN: string; serial: string }> {
  const socket = connect(vnc!)
  const answer = async (): Promise<Buffer> => (await once(socket, 'data'))[0]
  try {
    socket.write(await answer())
    assert.deepEqual([...(await answer())], [1, veNCrypt])
    socket.write(Buffer.of(veNCrypt))
    assert.deepEqual([...(await answer())], [0, 2])
    socket.write(Buffer.of(0, 2))
    const kinds = await answer()
    assert.deepEqual([kinds[0], kinds[1], kinds.readUInt32BE(2)], [0, 1, x509Vnc])
    socket.write(kinds.subarray(2))
    assert.deepEqual([...(await answer())], [1])
    const encrypted = encrypt({ socket, rejectUnauthorized: false })
    await once(encrypted, 'secureConnect')
    const { subject, serialNumber } = encrypted.getPeerCertificate()
    // The challenge of the password.
    assert.equal(((await once(encrypted, 'data')) as [Buffer])[0].length, 16)
    return { CN: String(subject.CN), serial: serialNumber }
  } finally {
    socket.destroy()
  }
}
