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
  runCommand,
  switchoverCommand,
  unprotectCommand,
  verifyCommand,
} from './commands/guests.ts'
import { recordCommand } from './commands/record.ts'
import { reportCommand } from './commands/report.ts'
import { statusCommand } from './commands/status.ts'
import { studyCommand } from './commands/study.ts'
import { wssCommand } from './commands/wss.ts'

export const commands: Command[] = [
  checkCommand,
  demoCommand,
  agentCommand,
  runCommand,
  protectCommand,
  unprotectCommand,
  statusCommand,
  eventsCommand,
  switchoverCommand,
  drainCommand,
  failoverCommand,
  verifyCommand,
  removeCommand,
  recordCommand,
  wssCommand,
  reportCommand,
  studyCommand,
  densityCommand,
  certCommand,
]
