/**
 * Fault points: named moments at every step of the spine where a test can make this process fail. SUBPAGE_FAULT holds
 * `POINT[:N]=ACTION`, several separated by commas: at the N-th passing (default the first) the process is killed
 * (`kill`), stopped (`stop`, SIGSTOP), or the step throws (`throw`). Without the variable nothing happens.
 */
import { SubpageError } from '../errors.ts'

export const faultPoints = [
  'before-pause',
  'before-harvest',
  'after-harvest',
  'after-capture',
  'after-resume',
  'before-send',
  'after-send',
  'before-ack',
  'after-ack',
  'before-apply',
  'after-apply',
  'before-release',
  'after-release',
  'before-load',
  'after-load',
] as const
export type FaultPoint = (typeof faultPoints)[number]

/** Called at each point; may throw, or not return at all. */
export type Faults = (point: FaultPoint) => void

const actions = {
  kill: () => process.kill(process.pid, 'SIGKILL'),
  stop: () => process.kill(process.pid, 'SIGSTOP'),
  throw: (point: FaultPoint) => {
    throw new SubpageError('INTERNAL', `fault point ${point}`)
  },
}

interface Planned {
  point: FaultPoint
  passingsLeft: number
  action: keyof typeof actions
}

/** @throws SubpageError BAD_ARGUMENT */
export function readFaults(text: string | undefined): Faults {
  if (!text) return () => undefined
  const planned = text.split(',').map(parse)
  return (point) => {
    for (const fault of planned)
      if (fault.point === point && --fault.passingsLeft === 0) actions[fault.action](point)
  }
}

function parse(text: string): Planned {
  const [, point, count, action] = /^([a-z-]+)(?::(\d+))?=([a-z]+)$/.exec(text) ?? []
  const known = faultPoints.find((name) => name === point)
  if (!known || action === undefined || !Object.hasOwn(actions, action))
    throw new SubpageError(
      'BAD_ARGUMENT',
      `SUBPAGE_FAULT: "${text}" is not POINT[:N]=ACTION; points: ${faultPoints.join(', ')}; actions: ${Object.keys(actions).join(', ')}`,
    )
  return { point: known, passingsLeft: Number(count ?? 1), action: action as Planned['action'] }
}
