#!/bin/sh
//bin/true; s=$(ulimit -Sn); while read -r k v; do case $k in SigBlk: | SigIgn:) s=$s,$v ;; esac; done </proc/$$/status; subpage_started_with=$s; export subpage_started_with; exec node "$0" "$@"
/**
 * The command line of this process. A shell reads the two lines above and becomes Node.js (started-with.ts); for Node.js they are
 * comments.
 */
import { untilLoaded } from './early-interruption.ts'

const loading = untilLoaded()
const [{ guardOutput }, { perform }] = await Promise.all([import('./output.ts'), import('./perform.ts')])
loading[Symbol.dispose]()
guardOutput()
process.exitCode = await perform(process.argv.slice(2), { out: process.stdout, err: process.stderr })
