/** `subpage completion zsh`: a function for zsh's `_arguments`, to be sourced or put on the fpath as `_subpage`. */
import type { Line, Option } from './words.ts'
import { quoted, whereOptions } from './words.ts'

export function zshScript(lines: readonly Line[]): string {
  return `#compdef subpage
# zsh completion for subpage. In ~/.zshrc, after compinit:  source <(subpage completion zsh)
_subpage_guests() {
  local -a where names
  local option
  for option in ${whereOptions.join(' ')}; do
    local at=\${words[(I)$option]}
    ((at > 0)) && where+=("\${\${(U)option#--}//-/_}=\${words[at+1]}")
  done
  names=(\${(f)"$(env \${where/#/SUBPAGE_} subpage completion names 2>/dev/null)"})
  compadd -a names
}

_subpage() {
  local -a commands=(
${lines.map(({ command, summary }) => `    ${quoted(`${command}:${summary}`)}`).join('\n')}
  )
  if ((CURRENT == 2)); then
    _describe -t commands command commands
    return
  fi
  local command=\${words[2]}
  shift words
  ((CURRENT--))
  case $command in
${lines.map(caseOf).join('\n')}
  esac
}

if [[ \${funcstack[1]} == _subpage ]]; then
  _subpage "$@"
else
  compdef _subpage subpage
fi
`
}

function caseOf({ command, options, args, more }: Line): string {
  const specs = [
    ...options.flatMap(optionSpecs),
    ...args.map((kind, i) => `${more && i === args.length - 1 ? '*' : i + 1}:${action(kind)}`),
  ]
  return `    ${command})
      _arguments -s -S : ${specs.map(quoted).join(' \\\n        ')}
      ;;`
}

function optionSpecs({ long, short, summary, value, many }: Option): string[] {
  const names = short === undefined ? [long] : [short, long]
  const text = `[${summary.replace(/[[\]\\]/g, '\\$&').replaceAll(':', '\\:')}]`
  const of = value === undefined ? '' : `:${action(value)}`
  // One form of two excludes the other.
  const excluded = many ? '*' : `(${names.join(' ')})`
  return names.map((name) => `${excluded}${name}${text}${of}`)
}

function action(value: NonNullable<Option['value']>): string {
  if (Array.isArray(value)) return `value:(${value.join(' ')})`
  return { guest: 'guest:_subpage_guests', file: 'file:_files', text: 'value: ' }[value]
}
