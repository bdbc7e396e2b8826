import { readFile } from 'node:fs/promises'

import { until } from '#test/lab/until.ts'

/**
 * Kills several as if in one instant: signals are sent one after another, and whoever still runs between two of them may answer the first death (the helper starts
 * another guard within milliseconds). So all are frozen first, then all are killed. @throws Error when one is not frozen within 20 s, or has ended by itself
 */
export async function killAtOnce(pids: readonly number[]): Promise<void> {
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  for (const pid of pids) await frozen(pid)
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch (error) {
      // One's death may be another's, frozen or not: the relay goes with the helper (PR_SET_PDEATHSIG).
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
  }
}

/** proc_pid_stat(5): "T" once no thread of it runs any more. */
async function frozen(pid: number): Promise<void> {
  await until(`process ${String(pid)} is frozen`, () => readFile(`/proc/${String(pid)}/stat`, 'utf8'), (stat) => stat.slice(stat.lastIndexOf(')') + 2).startsWith('T'))
}
