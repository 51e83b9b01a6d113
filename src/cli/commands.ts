/** The table of all commands, in the order in which help shows them. */
import type { Command } from './command.ts'
import { agentCommand } from './commands/agent.ts'
import { certCommand } from './commands/cert.ts'
import { checkCommand } from './commands/check.ts'
import { demoCommand } from './commands/demo.ts'
import { densityCommand } from './commands/density.ts'
import { eventsCommand } from './commands/events.ts'
import {
  drainCommand,
  failoverCommand,
  protectCommand,
  removeCommand,
  switchoverCommand,
  unprotectCommand,
  verifyCommand,
} from './commands/guests.ts'
import { runCommand } from './commands/run.ts'
import { consoleCommand, screenshotCommand } from './commands/screen.ts'
import { statusCommand } from './commands/status.ts'
import { wssCommand } from './commands/wss.ts'
import { labCommands } from './lab.ts'

const { record, report, study } = await labCommands()

export const commands: Command[] = [
  checkCommand,
  demoCommand,
  agentCommand,
  runCommand,
  protectCommand,
  unprotectCommand,
  statusCommand,
  eventsCommand,
  consoleCommand,
  screenshotCommand,
  switchoverCommand,
  drainCommand,
  failoverCommand,
  verifyCommand,
  removeCommand,
  record,
  wssCommand,
  report,
  study,
  densityCommand,
  certCommand,
]
