/** `subpage agent`: runs the daemon of this host in the foreground. */
import { setTimeout as delay } from 'node:timers/promises'
import { formatAddress } from '../../agent/address.ts'
import type { Agent } from '../../agent/agent.ts'
import type { ArbiterFlags } from '../../agent/arbiter-choice.ts'
import type { LogLevel } from '../../agent/log.ts'
import type { NotifyOptions } from '../../agent/notifications.ts'
import type { ServeOptions } from '../../agent/serve.ts'
import { asSubpageError, SubpageError } from '../../errors.ts'
import { release } from '../../release.ts'
import { stateOf } from '../agent-of.ts'
import { type Command, type Invocation, read, text } from '../command.ts'
import { systemConfig, withConfig } from '../config-file.ts'
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
      form: '--api-read-token-file <file>',
      summary: 'file with another token, for those who may look and change nothing; mode 0600',
    },
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
    {
      form: '--log-level <level>',
      summary:
        'how much is logged: lines of JSON on standard error, or text where that is a terminal; debug has each request to the API',
      default: 'info',
      choices: ['error', 'warn', 'info', 'debug'],
    },
    {
      form: '--on-event <program-file>',
      summary:
        'program that is run for each event, with kind, guest and text as arguments and all of it in JSON on standard input; for 30s at most',
    },
    {
      form: '--webhook <url>',
      summary: 'https://HOST/PATH to which each event is posted in JSON, signed as Standard Webhooks has it',
    },
    {
      form: '--webhook-secret-file <file>',
      summary: 'file with the secret that signs, 32 characters or more; mode 0600',
    },
    {
      form: '--config <file>',
      summary: `file in TOML with these options, by their names (default: ${systemConfig} of root's agent in /run/subpage, where it exists)`,
    },
    { form: '--check-config', summary: 'say whether the options and the file are right, and begin nothing' },
  ],
  async run(given) {
    const { invocation, file } = await withConfig(agentCommand, given)
    const { flags, output } = invocation
    const { serve, checkServe } = await import('../../agent/serve.ts')
    const { agentLog, isLogged, now } = await import('../../agent/log.ts')
    const level = text(invocation, 'logLevel') as LogLevel
    const log = flags.checkConfig ? undefined : agentLog(level)
    const options = { ...serveOptions(invocation), logLevel: level, ...(log && { log }) }
    if (flags.checkConfig) {
      await checkServe(options)
      const settings = Object.fromEntries(Object.entries(flags).filter(([name]) => name !== 'checkConfig'))
      return output.data(
        { file: file ?? null, settings },
        () => `${file ?? 'the command line'}: all options are right`,
      )
    }
    const agent = await serve(options)
    // Whoever read the events may leave; the agent stays.
    onOutputLost(() => undefined)
    // Of people at a terminal; programs read the log, or --json.
    if (output.json || !log)
      agent.eventLog.on('event', (event) => {
        if (output.json || isLogged(event, level))
          output.data(event, () => `${event.time} ${event.guest || '-'} ${event.kind}: ${event.text}`)
      })
    if (flags.ephemeral) endWithInput(agent)
    void agent.health.looked.then(() => {
      const { trouble } = agent.health
      if (trouble === undefined) return
      const text = `${agent.arbiter.description}: ${trouble}`
      if (log) log.warn({ ...now(), kind: 'arbiter' }, text)
      else output.note(`warning: ${text}`)
    })
    const ready = {
      host: agent.hostName,
      state: agent.stateDirectory,
      replication: formatAddress(agent.address),
    }
    const words = `subpage agent ${ready.host}: ready (state ${ready.state}, replication ${ready.replication})`
    if (output.json) output.data({ ready }, () => '')
    if (log) log.info({ ...now(), kind: 'ready', ...ready, release }, words)
    else output.note(words)
  },
}

function serveOptions(invocation: Invocation): ServeOptions {
  const { flags } = invocation
  return {
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
    notify: notifyOf(flags),
    ...tlsOf(flags),
    ...apiOf(flags),
  }
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

function notifyOf({ onEvent, webhook, webhookSecretFile }: Invocation['flags']): NotifyOptions {
  if ((webhook === undefined) !== (webhookSecretFile === undefined))
    throw new SubpageError('BAD_ARGUMENT', 'give --webhook and --webhook-secret-file together')
  return {
    ...(onEvent !== undefined && { program: String(onEvent) }),
    ...(webhook !== undefined && {
      webhook: { url: String(webhook), secretFile: String(webhookSecretFile) },
    }),
  }
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

function apiOf({
  apiListen,
  apiTokenFile,
  apiReadTokenFile,
}: Invocation['flags']): Pick<ServeOptions, 'api'> {
  if (apiListen === undefined) return {}
  if (apiTokenFile === undefined)
    throw new SubpageError(
      'BAD_ARGUMENT',
      '--api-listen needs --api-token-file: openssl rand -hex 32 makes a token',
    )
  return {
    api: {
      listen: String(apiListen),
      tokenFile: String(apiTokenFile),
      ...(apiReadTokenFile !== undefined && { readTokenFile: String(apiReadTokenFile) }),
    },
  }
}

/** Whoever started us holds the other end of our standard input: it closes when they end, however they end. */
function endWithInput(agent: Agent): void {
  process.stdin.resume()
  process.stdin.once('end', async () => {
    // A primary that loses its standby here would begin the next one at once.
    agent.closeDoor()
    // One guest that resists must not keep the others; and one may have begun just now.
    for (let rounds = 0; agent.names.length > 0 && rounds < removeRounds; rounds++)
      await Promise.all(agent.names.map((name) => removeAtLast(agent, name)))
    process.kill(process.pid, 'SIGTERM')
  })
}

const removeRounds = 3
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
