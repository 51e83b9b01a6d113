/** `subpage cert`: a CA and certificates of hosts, for those who have none. */
import { SubpageError } from '../../errors.ts'
import { type Command, type Invocation, text } from '../command.ts'

const caDays = 3650
const hostDays = 730
const daysMax = 36_500

export const certCommand: Command = {
  name: 'cert',
  args: ['<what>', '[name]'],
  completes: [['ca', 'host']],
  summary: 'make a CA, and certificates with which hosts trust each other',
  help: `Example:
  subpage cert ca --out ca
  subpage cert host alpha --address 192.0.2.10 --ca ca --out alpha
  subpage cert host beta --address 192.0.2.11 --ca ca --out beta

Give each host its own directory, and none the key of the CA (ca.key): whoever has that key can be any host. Then:
  subpage agent --listen 192.0.2.10:7475 --tls-ca alpha/ca.crt --tls-cert alpha/alpha.crt --tls-key alpha/alpha.key

A certificate holds for the host's name and for every --address; the agents see a renewed one without a restart.`,
  flags: [
    { form: '--out <dir>', summary: 'where the files are written', default: '.' },
    { form: '--ca <dir>', summary: 'where ca.crt and ca.key are (for `host`)', default: '.' },
    {
      form: '--address <address>',
      summary: 'IP address or DNS name by which the host is reached; may be given several times',
      many: true,
    },
    { form: '--days <days>', summary: `validity (default: ${caDays} for a CA, ${hostDays} for a host)` },
    { form: '--force', summary: 'replace files that exist' },
  ],
  async run(invocation) {
    const { args, flags, output } = invocation
    const [what, name] = args
    // Loaded only here: no other command needs the library behind it.
    const { makeCa, makeHostCertificate } = await import('../../agent/certificates.ts')
    const out = text(invocation, 'out')
    const force = flags.force === true
    if (what === 'ca' && name === undefined) {
      const made = await makeCa(out, { days: daysOf(invocation, caDays) }, force)
      output.data(made, () => `CA until ${day(made.validTo)}: ${made.cert}; keep its key safe: ${made.key}`)
    } else if (what === 'host' && name !== undefined) {
      const addresses = flags.address === undefined ? [] : String(flags.address).split(',')
      const request = { name, addresses, caDirectory: text(invocation, 'ca'), directory: out }
      const made = await makeHostCertificate(request, { days: daysOf(invocation, hostDays) }, force)
      output.data(
        made,
        () =>
          `host ${name} until ${day(made.validTo)}; start its agent with\n--tls-ca ${made.ca} --tls-cert ${made.cert} --tls-key ${made.key}`,
      )
    } else throw new SubpageError('BAD_ARGUMENT', 'say `subpage cert ca` or `subpage cert host NAME`')
  },
}

function daysOf({ flags }: Invocation, otherwise: number): number {
  const days = flags.days === undefined ? otherwise : Number(flags.days)
  if (!Number.isInteger(days) || days < 1 || days > daysMax)
    throw new SubpageError('BAD_ARGUMENT', `--days: give a number of days from 1 to ${daysMax}`)
  return days
}

const day = (date: Date) => date.toISOString().slice(0, 10)
