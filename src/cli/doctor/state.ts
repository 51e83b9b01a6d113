/** What the state of a guest says: whether something could take over, whether it is right, and who would decide. */
import { formatTime } from '../sizes.ts'
import { otherHost } from '../status-text.ts'
import { dayMs, type Finding, finding, type Patient } from './finding.ts'

const verifiedLongAgoMs = 30 * dayMs

/** With the code of the reason, which stays the same while its words change. */
export function stateOf(patient: Patient): Finding[] {
  const { reasonCode } = patient.guest
  return findingsOf(patient).map((found) => (reasonCode ? { ...found, code: reasonCode } : found))
}

function findingsOf({ guest }: Patient): Finding[] {
  const { name, role, state, reason, seeding, peer, pid } = guest
  const because = reason === '' ? '' : `: ${reason}`
  const critical = (id: string, problem: string, remedy: string, command?: string) => [
    finding('critical', id, problem, remedy, command),
  ]
  if (state === 'Hung')
    return critical(
      'hung',
      `its QEMU gives no answer${because}`,
      'look for what it waits for: a dead disk, a debugger, a SIGSTOP. It goes on by itself; where there is a whole standby and this host is lost, let that take over',
      `subpage failover ${name}     # on the other host`,
    )
  if (state === 'Ended' || (state === 'Failed' && pid === null))
    return critical(
      'ended',
      `it runs on this host no more${because}`,
      'see whether the other host goes on with it, then forget it here',
      `subpage remove ${name}`,
    )
  if (role === 'Standby' && state === 'Failed')
    return critical(
      'standby-failed',
      `the standby here cannot take over${because}`,
      "read its log, and remove the standby: the primary's host begins another one",
      `subpage remove ${name}`,
    )
  // What cannot be taken back is said below.
  if (guest.devicesDiffer && guest.reasonCode !== 'GUEST_UNPROTECTABLE')
    return critical(
      'devices-differ',
      reason,
      'unplug what was plugged in, plug in what is missing, put the medium back (QMP device_del, device_add; virsh detach-device, attach-device, change-media with --live), or shut it down and start it with the devices that it shall have. Its protection goes on by itself',
    )
  if (role === 'Alone' && state === 'Failed')
    return critical(
      'unprotectable',
      `it runs, and cannot be protected as it was${because}`,
      'mend what the reason names, then protect it anew',
      `subpage unprotect ${name} && subpage protect ${name} --to ${peer ?? 'HOST'}`,
    )
  if (role === 'Alone' && state === 'Running')
    return critical(
      'not-protected',
      guest.reasonCode === 'NOT_PROTECTED' ? 'it is not protected' : `it is not protected${because}`,
      'choose another host with an agent',
      `subpage protect ${name} --to HOST:PORT`,
    )
  if (state === 'Seeding') {
    const left = seeding?.secondsLeft
    const rest = typeof left === 'number' ? `, about ${formatTime(Math.ceil(left) * 1000)} left` : ''
    return critical(
      'seeding',
      `its standby is being brought up to it${rest}: until then nothing can take over`,
      'wait',
      `subpage status ${name} --watch`,
    )
  }
  if (state === 'Connecting')
    return critical(
      'connecting',
      role === 'Standby' ? `the primary is not heard${because}` : `its standby is not reached${because}`,
      `see to the other host (${otherHost(guest) ?? 'unknown'}): its agent, the network and the firewall between; it goes on by itself`,
    )
  if (state === 'Lagging')
    return [
      finding(
        'warning',
        'lagging',
        `commits take long${because}: a failover would lose more than an epoch of what was not sent yet`,
        "look at the link and at the load of the standby's host; longer epochs need less",
        `subpage unprotect ${name} && subpage protect ${name} --to ${peer ?? 'HOST'} --epoch auto`,
      ),
    ]
  if (state === 'Protected') return []
  return [finding('warning', 'state', `it is ${state}${because}`, 'see docs/operations.md, States')]
}

export function contentOf({ guest, now }: Patient): Finding[] {
  const { name, verified, role, peer } = guest
  if (role !== 'Primary') return []
  if (verified?.equal === false)
    return [
      finding(
        'critical',
        'differs',
        'guest and standby were found to differ: a failover would give a guest with wrong memory or disks',
        'this is a defect of subpage: keep a support bundle of both hosts, then seed the standby anew',
        `subpage support-bundle -o bundle.tar.gz && subpage unprotect ${name} && subpage protect ${name} --to ${peer ?? 'HOST'}`,
      ),
    ]
  const old = verified !== null && now - verified.at > verifiedLongAgoMs
  if (verified !== null && !old) return []
  return [
    finding(
      'note',
      'not-verified',
      old
        ? 'guest and standby were compared more than 30 days ago'
        : 'guest and standby were never compared in this protection',
      'compare them once, or from time to time with protect --verify-every',
      `subpage verify ${name}`,
    ),
  ]
}

export function deciderOf({ guest, host, peer }: Patient): Finding[] {
  const { role, arbiter, arbiterTrouble, outputs } = guest
  const paired = role !== 'Alone' && outputs !== null
  const there = typeof peer === 'string' ? undefined : peer.host.arbiter
  if (arbiterTrouble !== null)
    return [
      finding(
        'critical',
        'arbiter-trouble',
        `the arbiter ${arbiter ?? host.arbiter.description} cannot decide: ${arbiterTrouble}. If the hosts lost each other now, neither would go on by itself`,
        'bring the etcd cluster or the shared directory back; nothing has to be restarted',
      ),
    ]
  if (paired && arbiter === null)
    return [
      finding(
        'warning',
        'arbiter-not-shared',
        there && there.description !== host.arbiter.description
          ? `the hosts have different arbiters (${host.arbiter.description}; there ${there.description}): only people decide who goes on`
          : 'the hosts share no arbiter: only people decide who goes on',
        'give both agents the same --arbiter: an etcd cluster, or a directory that both have mounted',
      ),
    ]
  if (host.arbiter.trouble !== null)
    return [
      finding(
        'warning',
        'arbiter-trouble',
        `the arbiter of this host, ${host.arbiter.description}, gives no answer: ${host.arbiter.trouble}`,
        'bring it back before a guest needs it',
      ),
    ]
  return []
}
