/** What commands draw in a terminal. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { Browser } from 'playwright-core'
import { mainFile } from '../../test/support/subpage.ts'
import { take } from './picture.ts'

const escaped = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

const colour = new RegExp(`${String.fromCharCode(27)}\\[([\\d;]*)m`)

/** What a terminal was told, as HTML: text, bold, and the colours that the command line uses. */
function htmlOf(told: string): string {
  const styles: Record<string, string> = {
    1: 'font-weight:700',
    2: 'opacity:.6',
    31: 'color:#ff6b64',
    32: 'color:#4cc38a',
    33: 'color:#e5a13b',
    36: 'color:#5cc8bb',
  }
  const on = new Set<string>()
  return told
    .replaceAll('\r', '')
    .split(colour)
    .map((part, index) => {
      if (index % 2 === 0) return `<span style="${[...on].join(';')}">${escaped(part)}</span>`
      for (const code of part.split(';')) {
        const style = styles[code]
        if (style === undefined) on.clear()
        else on.add(style)
      }
      return ''
    })
    .join('')
}

/** Of the terminal; of the font below, in pixels; and of the page. */
const columns = 116
const columnPx = 8.13
const marginPx = 20

/** A command in a real terminal (util-linux's script), and what it has drawn there. */
export async function takeTerminal(browser: Browser, command: string, of: string): Promise<void> {
  const program = `subpage() { "${process.execPath}" "${mainFile}" "$@"; }; stty cols ${columns}; ${command} || true`
  const { stdout } = await promisify(execFile)('script', ['-qec', program, '/dev/null'], {
    env: { ...process.env, TERM: 'xterm-256color' },
  })
  const page = await (
    await browser.newContext({
      viewport: { width: Math.ceil(columns * columnPx) + 2 * marginPx, height: 100 },
    })
  ).newPage()
  const text = `<span style="opacity:.6">$ ${escaped(command)}</span>\n${htmlOf(stdout)}`
  await page.setContent(
    `<body style="margin:0;background:#101217;color:#e6e8ee"><pre style="margin:0;padding:16px ${marginPx}px;font:13.5px/1.5 'DejaVu Sans Mono',monospace">${text}</pre></body>`,
  )
  await take(page, of, true)
  await page.context().close()
}
