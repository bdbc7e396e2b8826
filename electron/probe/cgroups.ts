import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

const mountPoint = '/sys/fs/cgroup'
/** A machine full of containers has some thousands; beyond that the list is given up, which only makes a wrong path be found later. */
const most = 20_000

export interface CgroupFacts {
  /** `` or `unified`: where version 2 lies below /sys/fs/cgroup. */
  readonly prefix: string
  readonly paths?: readonly string[]
}

/** Where the cgroup v2 hierarchy is and what is in it; undefined when there is none in its usual place. */
export async function listCgroups(): Promise<CgroupFacts | undefined> {
  const mounts = (await readFile('/proc/self/mounts', 'utf8')).split('\n').map((line) => line.split(' '))
  const places = mounts.filter((mount) => mount[2] === 'cgroup2').map((mount) => mount[1])
  const prefix = places.includes(mountPoint) ? '' : places.includes(`${mountPoint}/unified`) ? 'unified' : undefined
  if (prefix === undefined) return undefined
  const root = join(mountPoint, prefix)
  const paths: string[] = []
  const waiting = ['']
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    // A cgroup may vanish while it is being listed.
    const entries = await readdir(join(root, path), { withFileTypes: true }).catch(() => [])
    for (const entry of entries) {
      if (!entry.isDirectory()) continue
      if (paths.length === most) return { prefix }
      const child = path === '' ? entry.name : `${path}/${entry.name}`
      paths.push(child)
      waiting.push(child)
    }
  }
  return { prefix, paths: paths.sort() }
}
