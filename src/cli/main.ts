#!/usr/bin/env node
/** The command line of this process. */
import { guardOutput } from './output.ts'
import { perform } from './perform.ts'

guardOutput()
process.exitCode = await perform(process.argv.slice(2), { out: process.stdout, err: process.stderr })
