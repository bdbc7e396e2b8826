import { lstatSync, realpathSync } from 'node:fs'
import type { BigIntStats } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

export const mountPoint = '/sys/fs/cgroup'
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

/**
 * Which cgroup bears each of these paths now, by the number the kernel knows it by (the inode of its directory); those that are not there are left out. `prefix` as in CgroupFacts.
 * What is no directory of the hierarchy itself (somebody's mount in the way, a link) is not there.
 */
export function readCgroupIds(prefix: string, paths: readonly string[]): Record<string, string> {
  const root = join(mountPoint, prefix)
  const device = look(root)?.dev
  const ids: Record<string, string> = {}
  for (const path of paths) {
    const found = look(join(root, path))
    if (found?.isDirectory() === true && found.dev === device) ids[path] = String(found.ino)
  }
  return ids
}

/** Directories whose comings and goings decide that: all above each path as far as they are there, with the number each is known by. */
export function cgroupParents(prefix: string, paths: readonly string[]): Map<string, string> {
  const root = join(mountPoint, prefix)
  const parents = new Map<string, string>()
  for (const path of paths) {
    const segments = path.split('/')
    for (let depth = 0; depth < segments.length; depth += 1) {
      const parent = join(root, ...segments.slice(0, depth))
      const found = look(parent)
      if (found?.isDirectory() !== true) break
      parents.set(parent, String(found.ino))
    }
  }
  return parents
}

function look(path: string): BigIntStats | undefined {
  try {
    return realpathSync.native(path) === path ? lstatSync(path, { bigint: true }) : undefined
  } catch {
    return undefined
  }
}
