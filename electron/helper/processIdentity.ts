import { readFileSync } from 'node:fs'

/** A process and the moment it started (clock ticks since boot, proc(5) stat field 22): together never another one's. */
export interface ProcessIdentity {
  readonly pid: number
  readonly start: string
}

/** Undefined when there is no such process, or it is a zombie (dead, only not yet collected). */
export function readIdentity(pid: number): ProcessIdentity | undefined {
  const found = readStat(pid)
  return found === undefined ? undefined : { pid, start: found.start }
}

/** What the kernel last did with a process: it may run (`R`), and the processor time it has had, in clock ticks. Undefined when it is gone. */
export function readProgress(identity: ProcessIdentity): { readonly runnable: boolean; readonly ticks: number } | undefined {
  const found = readStat(identity.pid)
  return found?.start === identity.start ? { runnable: found.state === 'R', ticks: found.ticks } : undefined
}

function readStat(pid: number): { readonly state: string; readonly start: string; readonly ticks: number } | undefined {
  let stat: string
  try {
    stat = readFileSync(`/proc/${String(pid)}/stat`, 'utf8')
  } catch {
    return undefined
  }
  // The name stands in parentheses and may hold anything, so count from the last one.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const [state, start] = [fields[0], fields[19]]
  if (state === undefined || start === undefined || state === 'Z' || state === 'X') return undefined
  return { state, start, ticks: Number(fields[11]) + Number(fields[12]) }
}

export function isAlive(identity: ProcessIdentity): boolean {
  return readIdentity(identity.pid)?.start === identity.start
}

/** Ends exactly this process, if it still is. True when it was there. */
export function killExactly(identity: ProcessIdentity): boolean {
  if (!isAlive(identity)) return false
  try {
    process.kill(identity.pid, 'SIGKILL')
    return true
  } catch {
    return false
  }
}
