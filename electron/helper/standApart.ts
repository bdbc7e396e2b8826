import { readdirSync, writeFileSync } from 'node:fs'

/**
 * Puts a process where what ends the app's whole group or service does not end it. Best effort, each by itself: not all kernels have each hierarchy, and a container's root may not be allowed.
 */
export function standApart(pid: number): void {
  const attempt = (path: string, value: string): void => {
    try {
      writeFileSync(path, value)
    } catch {
      // Then the guard shares the helper's fate in this respect.
    }
  }
  attempt(`/proc/${String(pid)}/oom_score_adj`, '-1000')
  const root = '/sys/fs/cgroup'
  // cgroup v2; hybrid's v2; systemd's own v1 hierarchy, by which a service is killed; the freezer. Resource limits of others are left as they are.
  for (const folder of ['', '/unified', '/systemd', '/freezer']) {
    if (folder === '' || exists(`${root}${folder}`)) attempt(`${root}${folder}/cgroup.procs`, String(pid))
  }
}

function exists(path: string): boolean {
  try {
    return readdirSync(path).includes('cgroup.procs')
  } catch {
    return false
  }
}
