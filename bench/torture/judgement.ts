/** What the witnesses of a fault say once its guest is whole again: each loss is counted, and said in words. */
import type { GuestStatus } from '../../src/agent/status.ts'
import { consoleAt, readConsole, recordsIn, victimLines } from '../../src/qemu/demo-guest.ts'
import type { TestHost } from '../../test/support/two-hosts.ts'
import { runsHere, type TorturedGuest } from './guest.ts'
import { type Client, diskWrong, type Recording, victimWrong } from './witnesses.ts'

/** None of these may ever be anything but 0. */
export interface Losses {
  /** Answers that the client got and that do not hold any more. */
  acknowledgedLost: number
  /** Times that a copy put out frames after another one had. */
  splitBrain: number
  /** Times that the victim found its memory damaged, or not to be what its history must have led to. */
  tornGuests: number
  /** Times that a record which the guest had synced to its disk was not there, or the standby's disk was another one. */
  disksWrong: number
  /** Guests that ran nowhere any more. */
  guestsLost: number
}

export const noLosses: Readonly<Losses> = {
  ...{ acknowledgedLost: 0, splitBrain: 0, tornGuests: 0, disksWrong: 0, guestsLost: 0 },
}

interface Case {
  guest: TorturedGuest
  /** Where it ran before the fault, and where its standby was. */
  from: TestHost
  to: TestHost
  client: Client
  /** Of its console, since before the fault. */
  recording: Recording
  losses: Losses
}

/**
 * What is wrong with guest, image, disk and client. A guest that was taken over while it was looked at is looked at again where it runs.
 * @throws Error when the guest does not become whole
 */
export async function judge({ losses, ...rest }: Case): Promise<string[]> {
  for (let look = 1; ; look++) {
    const found = { ...noLosses }
    const { problems, moved } = await lookAt({ ...rest, losses: found })
    if (moved && look < looksMax) continue
    for (const kind of Object.keys(found) as (keyof Losses)[]) losses[kind] += found[kind]
    return problems
  }
}

const looksMax = 5

async function lookAt(of: Case): Promise<{ problems: string[]; moved: boolean }> {
  const { guest, from, to, client, losses } = of
  const problems: string[] = []
  const { owner, status, image, answered } = await guest.verified(from, to, client)
  if (!answered) problems.push('the client gets no answers')
  if (image instanceof Error) problems.push(`verify: ${image.message}`)
  else if (!image.equal && image.difference === undefined) {
    losses.disksWrong++
    problems.push(`the standby's disk is not the guest's: ${JSON.stringify(image.disks)}`)
  } else if (!image.equal) {
    losses.tornGuests++
    problems.push(`the standby's image is not the guest's memory: ${JSON.stringify(image).slice(0, 300)}`)
  }
  // A guest that moves takes its files with it.
  problems.push(...(await asked(of, owner, status).catch((error: Error) => [error.message])))
  const now = await owner.guest(guest.name)
  return { problems, moved: now?.generation !== status.generation || !runsHere(now) }
}

/** What the guest itself says, and its disk. */
async function asked(
  { to, recording, losses }: Case,
  owner: TestHost,
  status: GuestStatus,
): Promise<string[]> {
  const problems: string[] = []
  const console = consoleAt(status.console)
  const wrong = await victimWrong(console)
  if (wrong !== undefined) {
    losses.tornGuests++
    problems.push(`victim: ${wrong}`)
  }
  const record = await diskWrong(status.disks[0]!.path, console)
  if (record !== undefined) {
    losses.disksWrong++
    problems.push(`disk: ${record}`)
  }
  const safe = owner === to && status.takeover ? recording.until(status.takeover.consoleBytes) : undefined
  if (safe === undefined) return problems
  const safeStep = victimLines(safe).at(-1)?.step ?? 0
  const first = victimLines(readConsole(console))[0]?.step ?? 0
  if (safeStep > first) {
    losses.acknowledgedLost++
    problems.push(`victim: step ${safeStep} was safe, and it went on at ${first}`)
  }
  const safeRecord = recordsIn(safe).at(-1) ?? 0
  const firstRecord = recordsIn(readConsole(console))[0]
  // The line of one may have been cut by the takeover.
  if (firstRecord !== undefined && ![safeRecord + 1, safeRecord + 2].includes(firstRecord)) {
    losses.disksWrong++
    problems.push(`disk: record ${safeRecord} was safe, and they went on at ${firstRecord}`)
  }
  return problems
}

export function percentiles(values: number[]): { p50: number; p99: number } {
  const sorted = values.sort((x, y) => x - y)
  const at = (share: number) =>
    Number((sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0).toFixed(1))
  return { p50: at(0.5), p99: at(0.99) }
}
