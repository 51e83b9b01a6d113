/** The second half of the schedules (many-schedules.ts): a file of its own runs beside the first one. */
import { testSchedules } from './many-schedules.ts'

testSchedules('second half')
