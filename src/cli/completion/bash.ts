/** `subpage completion bash`. Words are taken from the line itself: bash would break them at colons and equals signs. */
import type { Line, Option } from './words.ts'
import { quoted, variableFor, whereOptions } from './words.ts'

export function bashScript(lines: readonly Line[]): string {
  return `# bash completion for subpage. In ~/.bashrc:  source <(subpage completion bash)
_subpage_guests() {
  local word= option=
  local -a where=()
  for word in "$@"; do
    case $option in
${whereOptions.map((option) => `      ${option}) where+=("${variableFor(option)}=$word") ;;`).join('\n')}
    esac
    option=$word
  done
  env "\${where[@]}" subpage completion names 2>/dev/null
}

_subpage() {
  COMPREPLY=()
  local line=\${COMP_LINE:0:COMP_POINT} current= previous= kind= flags= valued= count= position=0 i
  local -a words=() args=()
  read -ra words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=('')
  count=\${#words[@]}
  current=\${words[count - 1]}
  previous=\${words[count - 2]}
  if ((count == 2)); then
    COMPREPLY=($(compgen -W ${quoted(lines.map(({ command }) => command).join(' '))} -- "$current"))
    return
  fi
  case \${words[1]} in
${lines.map(caseOf).join('\n')}
    *) return ;;
  esac
  if [[ $valued == *" $previous "* ]]; then
    kind=\${kind:-text}
  elif [[ $current == -* ]]; then
    kind="words $flags"
  else
    for ((i = 2; i < count - 1; i++)); do
      [[ \${words[i]} == -- ]] && return
      if [[ $valued == *" \${words[i]} "* ]]; then
        ((i++))
      elif [[ \${words[i]} != -* ]]; then
        ((position++))
      fi
    done
    kind=\${args[position]:-$more}
  fi
  case $kind in
    guest) COMPREPLY=($(compgen -W "$(_subpage_guests "\${words[@]}")" -- "$current")) ;;
    file)
      compopt -o filenames 2>/dev/null
      local IFS=$'\\n'
      COMPREPLY=($(compgen -f -- "$current"))
      ;;
    words*) COMPREPLY=($(compgen -W "\${kind#words }" -- "$current")) ;;
  esac
  # What is before the last colon stands on the line already.
  local before=\${current%"\${current##*[:=]}"}
  COMPREPLY=("\${COMPREPLY[@]#"$before"}")
}

complete -F _subpage subpage
`
}

function caseOf({ command, options, args, more }: Line): string {
  const valued = options.filter(({ value }) => value !== undefined)
  const kinds = args.map(kindOf)
  const values = valued.filter(({ value }) => value !== 'text')
  return `    ${command})
      flags=${quoted(options.map(({ long }) => long).join(' '))}
      valued=${quoted(` ${valued.flatMap(namesOf).join(' ')} `)}
      args=(${kinds.map(quoted).join(' ')}) more=${quoted(more ? kinds.at(-1)! : '')}
      case $previous in
${values.map((option) => `        ${namesOf(option).join(' | ')}) kind=${quoted(kindOf(option.value))} ;;\n`).join('')}      esac
      ;;`
}

const namesOf = ({ long, short }: Option) => (short === undefined ? [long] : [short, long])

const kindOf = (value: Option['value']) => (Array.isArray(value) ? `words ${value.join(' ')}` : (value ?? ''))
