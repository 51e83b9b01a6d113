/**
 * What Page Modification Logging costs a guest: T = T_PTW + N × (T_x + T_e + T_h) (Bitchebe, Tchana, Réveillère), beside
 * write protection, where every first write to a page interrupts the guest. N is measured; the prices of the parts are
 * inputs, since no guest here runs on hardware that logs.
 */
import { type LogEntries, logEntries } from '../plugin/layout.ts'

export interface Inputs {
  /** T_x + T_e: leaving the guest and entering it again. */
  exitEntryNs: number
  /** T_h for each entry of a full log. */
  handleEntryNs: number
  /** T_PTW for each page that is logged. */
  logPageNs: number
}

export const inputs: Inputs = { exitEntryNs: 500, handleEntryNs: 20, logPageNs: 2 }

/** Where each input is from, in words for people. */
export const inputSources: Record<keyof Inputs, string> = {
  exitEntryNs:
    'T_x + T_e, an assumption: about 1,360 cycles were printed for one `vmrun` there and back on AMD in the discussion of a KVM patch (linux-kernel, December 2020), half a microsecond at 2.7 GHz',
  handleEntryNs:
    'T_h for each entry of the log, an assumption: finding the memory slot and setting a bit, as KVM does',
  logPageNs: 'T_PTW for each logged page, an assumption: one store of 8 bytes to a page that is in the cache',
}

export interface Events {
  seconds: number
  /** Pages that were logged: first writes since they were armed. */
  logged: number
  /** N, by the size of the log. */
  full: Record<LogEntries, number>
}

/** T as a share of the guest's time, for a log of that many entries. */
export function loggingShare(
  { seconds, logged, full }: Events,
  entries: LogEntries,
  { exitEntryNs, handleEntryNs, logPageNs }: Inputs = inputs,
): number {
  const events = full[entries] * (exitEntryNs + entries * handleEntryNs)
  return (logged * logPageNs + events) / (seconds * 1e9)
}

/**
 * The same for write protection: a fault for each page.
 * @param faultNs what the fault itself costs, as measured; a guest on KVM leaves and enters besides
 */
export function protectionShare({ seconds, logged }: Events, faultNs: number, exitEntryNs: number): number {
  return (logged * (faultNs + exitEntryNs)) / (seconds * 1e9)
}

export function sharesBySize(events: Events): Record<LogEntries, number> {
  return Object.fromEntries(logEntries.map((entries) => [entries, loggingShare(events, entries)])) as Record<
    LogEntries,
    number
  >
}
