import { readFile } from 'node:fs/promises'
import { setTimeout as wait } from 'node:timers/promises'

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
  const end = performance.now() + 20_000
  for (;;) {
    const stat = await readFile(`/proc/${String(pid)}/stat`, 'utf8')
    if (stat.slice(stat.lastIndexOf(')') + 2).startsWith('T')) return
    if (performance.now() > end) throw new Error(`process ${String(pid)} does not stop: ${stat.trim()}`)
    await wait(5)
  }
}
