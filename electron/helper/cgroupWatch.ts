import { watch } from 'node:fs'
import type { FSWatcher } from 'node:fs'

import { cgroupParents, readCgroupIds } from '#probe/cgroups.ts'

/** A look without being told: a directory that goes takes its own watch with it, and there may be none to be had (fs.inotify.max_user_watches). */
const lookEvery = 1000

export interface CgroupWatchOptions {
  /** Where the hierarchy is: `CgroupFacts.prefix`. */
  readonly prefix: string
  /** Other cgroups bear the paths than were seen last. */
  readonly onChange: () => void
}

/** Sees within milliseconds when a cgroup is made or removed at one of some paths. */
export class CgroupWatch {
  readonly #options: CgroupWatchOptions
  readonly #watchers = new Map<string, FSWatcher>()
  #paths: readonly string[] = []
  #seen = ''
  #timer: NodeJS.Timeout | undefined

  constructor(options: CgroupWatchOptions) {
    this.#options = options
  }

  /** From now on these; none: nothing is watched. */
  follow(paths: readonly string[]): void {
    if (JSON.stringify(paths) === JSON.stringify(this.#paths)) return
    this.stop()
    this.#paths = paths
    if (paths.length === 0) return
    this.#seen = this.#look()
    this.#timer = setInterval(() => this.#check(), lookEvery)
  }

  stop(): void {
    clearInterval(this.#timer)
    for (const watcher of this.#watchers.values()) watcher.close()
    this.#watchers.clear()
    this.#paths = []
  }

  #check(): void {
    const now = this.#look()
    if (now === this.#seen) return
    this.#seen = now
    this.#options.onChange()
  }

  /** Watches first: what is made while it looks is told of. */
  #look(): string {
    const { prefix } = this.#options
    for (let news = true; news; ) {
      news = false
      const parents = cgroupParents(prefix, this.#paths)
      // A watch of a directory that has gone is silent, also when another one has its name.
      for (const [key, watcher] of this.#watchers) {
        if ([...parents].some((entry) => keyOf(entry) === key)) continue
        watcher.close()
        this.#watchers.delete(key)
      }
      for (const entry of parents) {
        if (this.#watchers.has(keyOf(entry))) continue
        try {
          const watcher = watch(entry[0], { persistent: false }, (event) => event === 'rename' && this.#check())
          watcher.on('error', () => undefined)
          this.#watchers.set(keyOf(entry), watcher)
          // In it there may be more to watch by now.
          news = true
        } catch {
          // The timer looks.
        }
      }
    }
    return JSON.stringify(readCgroupIds(prefix, this.#paths))
  }
}

function keyOf([path, id]: readonly [string, string]): string {
  return `${id} ${path}`
}
