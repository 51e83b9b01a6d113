/** `subpage completion fish`. */
import type { Line, Option } from './words.ts'
import { variableFor, whereOptions } from './words.ts'

export function fishScript(lines: readonly Line[]): string {
  return `# fish completion for subpage. Once:  subpage completion fish > ~/.config/fish/completions/subpage.fish
function __subpage_guests
    set -l words (commandline -opc)
    set -l where
    for i in (seq (count $words))
        switch $words[$i]
${whereOptions.map((option) => `            case ${option}\n                set -a where ${variableFor(option)}=$words[(math $i + 1)]`).join('\n')}
        end
    end
    env $where subpage completion names 2>/dev/null
end

# Whether the command is this one, and so many of its arguments (-eq), or more (-ge), stand before the cursor, and no option that takes a value right before it
function __subpage_at
    set -l words (commandline -opc)
    test (count $words) -ge 2; and test "$words[2]" = "$argv[1]"; or return 1
    set -l valued $argv[4..]
    set -l seen 0
    set -l skip 0
    for word in $words[3..]
        if test $skip = 1
            set skip 0
        else if contains -- $word $valued
            set skip 1
        else if not string match -q -- '-*' $word
            set seen (math $seen + 1)
        end
    end
    test $skip = 0; and test $seen $argv[2] $argv[3]
end

function __subpage_command
    set -l words (commandline -opc)
    test (count $words) -ge 2; and test "$words[2]" = "$argv[1]"
end

complete -c subpage -f
${lines.map(({ command, summary }) => `complete -c subpage -n 'test (count (commandline -opc)) = 1' -a ${command} -d ${quoted(summary)}`).join('\n')}
${lines.flatMap(completionsOf).join('\n')}
`
}

function completionsOf({ command, options, args, more }: Line): string[] {
  const valued = options.filter(({ value }) => value !== undefined).map(({ long }) => long)
  const at = (position: number, more: boolean) =>
    quoted(`__subpage_at ${[command, more ? '-ge' : '-eq', position, ...valued].join(' ')}`)
  return [
    ...options.map(
      ({ long, short, summary, value }) =>
        `complete -c subpage -n ${quoted(`__subpage_command ${command}`)} -l ${long.slice(2)}${short ? ` -s ${short.slice(1)}` : ''} -d ${quoted(summary)}${taking(value)}`,
    ),
    ...args.flatMap((kind, i) =>
      kind === 'text' ? [] : [`complete -c subpage -n ${at(i, i === args.length - 1 && more)}${given(kind)}`],
    ),
  ]
}

function taking(value: Option['value']): string {
  if (value === undefined) return ''
  if (value === 'text') return ' -x'
  return value === 'file' ? ' -r -F' : ` -x${given(value)}`
}

function given(value: NonNullable<Option['value']>): string {
  if (Array.isArray(value)) return ` -a ${quoted(value.join(' '))}`
  return value === 'guest' ? ` -a '(__subpage_guests)'` : ' -F'
}

/** Within single quotes fish takes a backslash before a quote and before another. */
const quoted = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
