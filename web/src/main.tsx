/** The dashboard of a host. */
import 'uplot/dist/uPlot.min.css'
import './styles/palette.css'
import './styles/base.css'
import './styles/page.css'
import './styles/guest-list.css'
import './styles/guest-view.css'
import './styles/plot.css'
import './styles/memory.css'
import './styles/timeline.css'
import './styles/dialog.css'
import { render } from 'preact'
import { App } from './app.tsx'

render(<App />, document.getElementById('app')!)
