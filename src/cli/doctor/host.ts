/** What the hosts of a guest say: disks, certificates, processes, their speed, and the other host. */
import type { HostStatus } from '../../agent/status.ts'
import { automaticPace } from '../../replication/pace.ts'
import { otherHost } from '../status-text.ts'
import { dayMs, type Finding, finding, type Patient } from './finding.ts'

const expirySoonMs = 30 * dayMs
/** A fifth of the default suspicion time: heartbeats are as often. */
const loopDelayMsMax = 100
/** Of the guest's time, as epochs that adapt leave it at most. */
const costMax = automaticPace.pauseShareMax!

export function disksOf({ guest }: Patient, where = 'here'): Finding[] {
  return guest.disks.flatMap(({ name, errors, lastError, lastErrorCode, path, cuts }) => [
    ...(errors === 0
      ? []
      : [
          finding(
            lastErrorCode === 'DISK_FULL' ? 'critical' : 'warning',
            'disk-errors',
            `its disk ${name} had ${errors} errors ${where}, the last: ${lastError ?? 'unknown'}`,
            'look at the room and the health of the file system',
            `df -h ${path}`,
          ),
        ]),
    ...(cuts === 0
      ? []
      : [
          finding(
            'warning',
            'disk-cuts',
            `its disk ${name} was cut from its standby ${cuts} times, because its supervisor stood still`,
            'this host is overloaded, or suspended at times: give it fewer guests',
          ),
        ]),
  ])
}

export function certificateOf({ certificate, host }: HostStatus, now: number): Finding[] {
  if (certificate === null) return []
  const left = Date.parse(certificate.validTo) - now
  const renew = `subpage cert host ${certificate.name} --address ADDRESS --ca CA --out DIR --force`
  const until = `the certificate of ${host} is valid until ${certificate.validTo}`
  if (left < 0)
    return [
      finding(
        'critical',
        'certificate-expired',
        `${until}: other hosts refuse it`,
        'renew it; no restart is needed',
        renew,
      ),
    ]
  if (left < expirySoonMs)
    return [finding('warning', 'certificate-expires', until, 'renew it soon; no restart is needed', renew)]
  return []
}

export function processesOf({ guest, density }: Patient): Finding[] {
  const { supervisor, shimMissing, fence, outputs } = guest
  const found: Finding[] = []
  const add = (...of: Parameters<typeof finding>) => void found.push(finding(...of))
  if (supervisor === null && guest.pid !== null)
    add(
      'critical',
      'no-supervisor',
      'the process that works for it does not answer: what it sends waits, and nothing protects it',
      'the agent starts the next one; supervisor.log in the directory of the guest says why it ended',
      `subpage events ${guest.name}`,
    )
  if (supervisor && supervisor.loopDelayMs > loopDelayMsMax)
    add(
      'warning',
      'loop-delay',
      `its supervisor was late by ${Math.round(supervisor.loopDelayMs)} ms once: its heartbeats are late then, and the standby may take over a guest that lives`,
      'this host is overloaded: give it fewer guests or more processors, or protect with a longer --suspicion',
    )
  if (shimMissing !== null)
    add(
      'warning',
      'shim-missing',
      `QEMU runs without ${shimMissing}`,
      'see what check says of the shim',
      'subpage check',
    )
  else if (fence?.on === false)
    add(
      'warning',
      'fence-off',
      'a copy that another host has taken over cannot be kept from speaking once more',
      'start it with a QEMU that loads the shim',
      'subpage check',
    )
  if (outputs === 'free' && guest.role !== 'Alone')
    add(
      'warning',
      'outputs-free',
      'outputs are free: a client may see answers that a failover takes back',
      'protect it with --outputs held, unless its clients can bear that',
    )
  if (density && density.error !== '')
    add(
      'warning',
      'density',
      `memory is not held as densely as asked for: ${density.error}`,
      'see docs/density.md',
      'subpage density status',
    )
  return found
}

export function speedOf({ guest }: Patient): Finding[] {
  const { epochs, epochMs, name } = guest
  if (!epochs || epochMs === null) return []
  const found: Finding[] = []
  const all = epochs.checkpoints + epochs.failed
  if (epochs.failed > 0 && epochs.failed * 100 > all)
    found.push(
      finding(
        'warning',
        'checkpoints-fail',
        `${epochs.failed} of ${all} checkpoints failed`,
        'nothing is lost by it, but the standby is behind: the events say why',
        `subpage events ${name}`,
      ),
    )
  const { pauses = 0, faults = 0 } = epochs.cost ?? {}
  if (guest.pauseShareMax === null && pauses + faults > costMax)
    found.push(
      finding(
        'warning',
        'costly',
        `protecting takes ${(pauses * 100).toFixed(0)} % of the guest's time in pauses and ${(faults * 100).toFixed(0)} % in faults: it is slow`,
        'longer epochs, or epochs that adapt, take less of it',
        `subpage unprotect ${name} && subpage protect ${name} --to ${guest.peer ?? 'HOST'} --epoch auto`,
      ),
    )
  return found
}

export function peerOf({ guest, host, peer, now }: Patient): Finding[] {
  if (guest.peer === null) return []
  if (typeof peer === 'string')
    return [
      finding(
        'note',
        'peer-unknown',
        `the other host, ${otherHost(guest)}, was not asked: ${peer}`,
        'run doctor there, too, or name its API',
        `subpage doctor ${guest.name} --peer-api https://HOST:PORT --api-token-file FILE`,
      ),
    ]
  const there = peer.guest
  const found = certificateOf(peer.host, now)
  if (peer.host.release !== host.release)
    found.push(
      finding(
        'note',
        'releases-differ',
        `this host has release ${host.release} of subpage, ${peer.host.host} has ${peer.host.release}`,
        'fine while both are upgraded one after the other; then make them the same',
      ),
    )
  if (!there || there.role === 'Alone')
    return [
      ...found,
      finding(
        'critical',
        'peer-has-none',
        there
          ? `${peer.host.host} has a guest of this name that is no standby: ${there.state}, ${there.reason}`
          : `${peer.host.host} knows nothing of it`,
        'see which copy is the newer one (generation in status) before anything is removed',
        `subpage status ${guest.name}`,
      ),
    ]
  if (there.qemu !== guest.qemu)
    found.push(
      finding(
        'warning',
        'qemu-differs',
        `QEMU is ${guest.qemu} here and ${there.qemu} there`,
        'a protection that is lost cannot be set up again: install the same on both hosts (docs/operations.md, Upgrade QEMU)',
      ),
    )
  if (there.state === 'Failed' || there.state === 'Hung')
    found.push(
      finding(
        'critical',
        'peer-failed',
        `on ${peer.host.host} it is ${there.state}: ${there.reason}`,
        'run doctor there',
        `subpage doctor ${guest.name}`,
      ),
    )
  return [...found, ...disksOf({ guest: there } as Patient, `on ${peer.host.host}`)]
}
