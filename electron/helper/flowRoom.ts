import { readFileSync } from 'node:fs'

import { Failure } from '#core/contract/failure.ts'
import { usualFlows } from '#core/contract/flowLimit.ts'

/** One to each side. */
const perFlow = 2
/** What else the relay opens: the pipes that bytes are spliced through, the record, each thread's listeners and what it waits by. */
const elsewhere = (threads: number): number => 160 + 16 * threads

export interface FileLimits {
  /** Text of /proc/PID/limits, proc(5). */
  readonly limits: string
  /** Of /proc/sys/fs/nr_open: setrlimit(2) keeps no hard limit above that. */
  readonly nrOpen: string
}

/**
 * So many flows as were asked for, if the relay can have them: it raises its own limit of open files to the hard one of whoever started it.
 * Fails with `usage`, saying what is possible.
 */
export function flowRoom(wanted: number | undefined, threads: number, read: () => FileLimits = readLimits): number {
  // What there is room for is the relay's to find out.
  if (wanted === undefined) return usualFlows
  const { limits, nrOpen } = read()
  const [soft, hard] = (/^Max open files\s+(\S+)\s+(\S+)/m.exec(limits)?.slice(1) ?? []).map((word) => (word === 'unlimited' ? Infinity : Number(word)))
  if (soft === undefined || hard === undefined) return wanted
  const files = hard > Number(nrOpen) ? soft : hard
  const most = Math.max(0, Math.floor((files - elsewhere(threads)) / perFlow))
  if (wanted <= most) return wanted
  throw new Failure('usage', `The relay may have ${String(files)} files open here, and so at most ${String(most)} flows at once, not ${String(wanted)}: ask for fewer, or raise the limit of open files (ulimit -Hn)`)
}

function readLimits(): FileLimits {
  return { limits: readFileSync('/proc/self/limits', 'latin1'), nrOpen: readFileSync('/proc/sys/fs/nr_open', 'latin1') }
}
