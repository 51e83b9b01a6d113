/** `subpage agent`: runs the daemon of this host in the foreground. */
import { setTimeout as delay } from 'node:timers/promises'
import { formatAddress } from '../../agent/address.ts'
import type { Agent } from '../../agent/agent.ts'
import type { ArbiterFlags } from '../../agent/arbiter-choice.ts'
import type { ServeOptions } from '../../agent/serve.ts'
import { asSubpageError, SubpageError } from '../../errors.ts'
import { stateOf } from '../agent-of.ts'
import { type Command, type Invocation, read } from '../command.ts'
import { onOutputLost } from '../output.ts'
import { formatTime, parseMs, within } from '../sizes.ts'

export const agentCommand: Command = {
  name: 'agent',
  args: [],
  summary: 'run the agent of this host',
  help: `Example:
  subpage agent --listen 192.0.2.10:7475 --tls-ca ca.crt --tls-cert alpha.crt --tls-key alpha.key

Without certificates (subpage cert makes them) other hosts are neither answered nor called; agents of this machine reach each other by their state directories. Guests outlive the agent; a new one on the same state directory finds them again.`,
  flags: [
    { form: '--state <dir>', summary: 'state directory (default: /run/subpage for root)' },
    {
      form: '--listen <address>',
      summary: 'where other hosts reach this one; needs certificates (port 7475 unless one is given)',
    },
    { form: '--ephemeral', summary: 'remove all guests and end when standard input ends (for tests)' },
    {
      form: '--host <name>',
      summary: 'name of this host in status and events (default: that of its certificate, or its host name)',
    },
    {
      form: '--advertise <address>',
      summary: 'where other hosts reach this one, when that is not where it listens',
    },
    {
      form: '--arbiter <arbiter>',
      summary:
        'who decides when two hosts have lost each other: file:DIR that both see, or etcd:URL,URL (default: for hosts on one machine, the machine)',
    },
    { form: '--arbiter-ca <file>', summary: 'etcd over https: CA of its servers' },
    { form: '--arbiter-cert <file>', summary: 'etcd over https: our certificate' },
    { form: '--arbiter-key <file>', summary: 'etcd over https: its private key' },
    { form: '--arbiter-user <name>', summary: 'etcd: our user' },
    {
      form: '--arbiter-password-file <file>',
      summary: 'etcd: file with its password (or SUBPAGE_ETCD_PASSWORD)',
    },
    { form: '--tls-ca <file>', summary: 'CA whose hosts are trusted' },
    { form: '--tls-cert <file>', summary: 'certificate of this host' },
    { form: '--tls-key <file>', summary: 'its private key; mode 0600' },
    { form: '--api-listen <address>', summary: 'serve the API over TCP too, for those who have the token' },
    { form: '--api-token-file <file>', summary: 'file with that token, 32 characters or more; mode 0600' },
    {
      form: '--images <dirs>',
      summary: 'further directories, separated by colons, that guests may read kernels and disks from',
    },
    {
      form: '--disks <dirs>',
      summary:
        'directories, separated by colons, in which other hosts may name files and devices for the disks of their guests (protect --disk-to)',
    },
    {
      form: '--swap <file>',
      summary: 'file, or block device, for the coldest pages of guests whose memory is held densely',
    },
    {
      form: '--swap-after <time>',
      summary: 'pages go to swap when nobody has asked for them in this time, at most 4min',
      default: '30s',
    },
  ],
  async run(invocation) {
    const { flags, output } = invocation
    const { serve } = await import('../../agent/serve.ts')
    const agent = await serve({
      stateDirectory: stateOf(invocation),
      ...(flags.listen === undefined ? {} : { listen: String(flags.listen) }),
      ...(flags.host === undefined ? {} : { hostName: String(flags.host) }),
      ...(flags.images === undefined ? {} : { images: String(flags.images) }),
      ...(flags.disks === undefined ? {} : { diskDirectories: String(flags.disks) }),
      ...(flags.swap === undefined
        ? {}
        : { swap: { file: String(flags.swap), afterMs: swapAfterOf(invocation) } }),
      ...(flags.advertise === undefined ? {} : { advertise: String(flags.advertise) }),
      arbiter: arbiterOf(flags),
      ...tlsOf(flags),
      ...apiOf(flags),
    })
    // Whoever read the events may leave; the agent stays.
    onOutputLost(() => undefined)
    agent.eventLog.on('event', (event) =>
      output.data(event, () => `${event.time} ${event.guest || '-'} ${event.kind}: ${event.text}`),
    )
    if (flags.ephemeral) endWithInput(agent)
    void agent.health.looked.then(() => {
      const { trouble } = agent.health
      if (trouble !== undefined) output.note(`warning: ${agent.arbiter.description}: ${trouble}`)
    })
    const ready = {
      host: agent.hostName,
      state: agent.stateDirectory,
      replication: formatAddress(agent.address),
    }
    if (output.json) output.data({ ready }, () => '')
    else
      output.note(
        `subpage agent ${ready.host}: ready (state ${ready.state}, replication ${ready.replication})`,
      )
  },
}

/** The store counts rounds of about a second in a byte. */
const swapAfterMsMax = 240_000

function swapAfterOf(invocation: Invocation): number {
  return read(invocation, 'swapAfter', within(parseMs, 1, swapAfterMsMax, formatTime))
}

function tlsOf({ tlsCa, tlsCert, tlsKey }: Invocation['flags']): Pick<ServeOptions, 'tls'> {
  const given = [tlsCa, tlsCert, tlsKey].filter((value) => value !== undefined)
  if (given.length === 0) return {}
  if (given.length < 3)
    throw new SubpageError('BAD_ARGUMENT', 'give --tls-ca, --tls-cert and --tls-key together')
  return { tls: { ca: String(tlsCa), cert: String(tlsCert), key: String(tlsKey) } }
}

function arbiterOf(flags: Invocation['flags']): ArbiterFlags {
  const named = {
    spec: flags.arbiter,
    caFile: flags.arbiterCa,
    certFile: flags.arbiterCert,
    keyFile: flags.arbiterKey,
    user: flags.arbiterUser,
    passwordFile: flags.arbiterPasswordFile,
  }
  return Object.fromEntries(
    Object.entries(named).flatMap(([key, value]) => (value === undefined ? [] : [[key, String(value)]])),
  )
}

function apiOf({ apiListen, apiTokenFile }: Invocation['flags']): Pick<ServeOptions, 'api'> {
  if (apiListen === undefined) return {}
  if (apiTokenFile === undefined)
    throw new SubpageError(
      'BAD_ARGUMENT',
      '--api-listen needs --api-token-file: openssl rand -hex 32 makes a token',
    )
  return { api: { listen: String(apiListen), tokenFile: String(apiTokenFile) } }
}

/** Whoever started us holds the other end of our standard input: it closes when they end, however they end. */
function endWithInput(agent: Agent): void {
  process.stdin.resume()
  process.stdin.once('end', async () => {
    // One guest that resists must not keep the others.
    await Promise.all(agent.names.map((name) => removeAtLast(agent, name)))
    process.kill(process.pid, 'SIGTERM')
  })
}

const removeTries = 50
const removeAgainMs = 200

/** One that is just being started goes when it has been. */
async function removeAtLast(agent: Agent, name: string): Promise<void> {
  for (let tries = 0; tries < removeTries; tries++)
    try {
      await agent.remove(name, true)
      return
    } catch (error) {
      if (asSubpageError(error).code !== 'GUEST_EXISTS') return
      await delay(removeAgainMs)
    }
}
