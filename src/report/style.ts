/** The style sheet of a page: one set of names, light or dark as the reader's system asks; prints as light. */

/** Eight colours that stay apart for colour-blind readers as neighbours, in each of the two modes. */
const light = ['#2a78d6', '#1baf7a', '#eda100', '#7a5230', '#4a3aa7', '#e34948', '#e87ba4', '#eb6834']
const dark = ['#3987e5', '#199e70', '#c98500', '#c9b08f', '#9085e9', '#e66767', '#d55181', '#d95926']

const variables = (colours: readonly string[]) =>
  colours.map((colour, i) => `--s${i + 1}:${colour}`).join(';')
const darkTheme = `--paper:#1a1a19;--card:#232322;--ink:#f4f4f2;--quiet:#a9a9a4;--grid:#353533;--base:#6b6b67;--heat:#8fc1ff;${variables(dark)}`

export const styleSheet = `
:root{color-scheme:light dark;--paper:#fcfcfb;--card:#f4f4f1;--ink:#1d1d1b;--quiet:#63635e;--grid:#e4e4df;--base:#a3a39c;--heat:#0b3f86;${variables(light)}}
@media screen and (prefers-color-scheme:dark){:root{${darkTheme}}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:880px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:28px;line-height:1.2;margin:0 0 8px}
h2{font-size:20px;line-height:1.3;margin:48px 0 4px}
h3{font-size:16px;margin:28px 0 4px}
p{margin:0 0 12px;max-width:72ch}
.lead{font-size:18px}
.meaning,footer,caption,nav{color:var(--quiet)}
nav{display:flex;flex-wrap:wrap;gap:2px 14px}
nav a{color:inherit}
figure{margin:0 0 8px;overflow-x:auto}
svg{display:block;width:100%;min-width:680px;height:auto;font:12px system-ui,sans-serif}
svg text{fill:var(--quiet)}
svg .value,svg .legend,svg .axis{fill:var(--ink)}
svg .end{text-anchor:end}svg .middle{text-anchor:middle}
svg .grid{stroke:var(--grid)}svg .base{stroke:var(--base)}
svg .mark{stroke:var(--ink);stroke-dasharray:4 3}
svg .note{fill:var(--ink);font-size:11px}
svg .line{fill:none;stroke-width:1.8;stroke-linejoin:round}
svg .area{opacity:.18;stroke:none}
svg .hint{fill:transparent}svg .hint:hover{fill:var(--ink);opacity:.07}
svg .heat{fill:var(--heat)}
${light.map((_, i) => `svg .fill.s${i + 1},svg .area.s${i + 1}{fill:var(--s${i + 1})}svg .line.s${i + 1}{stroke:var(--s${i + 1})}`).join('\n')}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:10px;margin:20px 0;padding:0}
.facts div{background:var(--card);border-radius:8px;padding:10px 14px}
.facts dt{color:var(--quiet);font-size:13px}
.facts dd{margin:0;font-size:22px;font-weight:600}
.facts small{display:block;color:var(--quiet);font-size:12px;font-weight:400}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums;margin:8px 0}
caption{text-align:left}
th,td{text-align:left;padding:3px 14px 3px 0;border-bottom:1px solid var(--grid);vertical-align:top}
th.number,td.number{text-align:right}
td.number{white-space:nowrap}
details{margin:0 0 12px;font-size:14px;color:var(--quiet)}
details table{color:var(--ink);font-size:12px}
footer{margin-top:56px;font-size:13px}
@media print{h2,h3,.meaning{break-after:avoid}figure,tr{break-inside:avoid}figure,.wide{overflow:visible}svg{min-width:0}nav{display:none}main{padding:0}}
`.trim()
