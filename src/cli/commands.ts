/** The table of all commands, in the order in which help shows them. */
import type { Command } from './command.ts'
import { agentCommand } from './commands/agent.ts'
import { certCommand } from './commands/cert.ts'
import { checkCommand } from './commands/check.ts'
import { completionCommand } from './commands/completion.ts'
import { dashboardCommand } from './commands/dashboard.ts'
import { demoCommand } from './commands/demo.ts'
import { densityCommand } from './commands/density.ts'
import { doctorCommand } from './commands/doctor.ts'
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
import { libvirtCommand } from './commands/libvirt.ts'
import { runCommand } from './commands/run.ts'
import { consoleCommand, screenshotCommand } from './commands/screen.ts'
import { statusCommand } from './commands/status.ts'
import { supportBundleCommand } from './commands/support-bundle.ts'
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
  doctorCommand,
  dashboardCommand,
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
  libvirtCommand,
  certCommand,
  supportBundleCommand,
  completionCommand,
]
