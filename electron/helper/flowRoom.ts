import { readFileSync } from 'node:fs'

import { Failure } from '#core/contract/failure.ts'
import { flowsWithin, readFileLimit, usualFlows } from '#core/contract/flowLimit.ts'

export interface FileLimits {
  /** Text of /proc/PID/limits, proc(5). */
  readonly limits: string
  /** Of /proc/sys/fs/nr_open. */
  readonly nrOpen: string
}

/** So many flows as were asked for, if the relay can have them. Fails with `usage`, saying what is possible. */
export function flowRoom(wanted: number | undefined, threads: number, read: () => FileLimits = readLimits): number {
  // What there is room for is the relay's to find out.
  if (wanted === undefined) return usualFlows
  const { limits, nrOpen } = read()
  const limit = readFileLimit(limits, nrOpen)
  if (limit === undefined) return wanted
  const most = flowsWithin(limit.files, threads)
  if (wanted <= most) return wanted
  throw new Failure('usage', `The relay may have ${String(limit.files)} files open here, and so at most ${String(most)} flows at once, not ${String(wanted)}: ask for fewer, or raise the limit of open files (ulimit -Hn)`)
}

function readLimits(): FileLimits {
  return { limits: readFileSync('/proc/self/limits', 'latin1'), nrOpen: readFileSync('/proc/sys/fs/nr_open', 'latin1') }
}
