import { readdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'

import { mountPoint, listCgroups, readCgroupIds } from './cgroups.ts'
import { findContainerCgroups } from './findCgroup.ts'

/** A container by the name a person chose it by, and the cgroups it was found to have. */
export interface ChosenContainer {
  readonly name: string
  readonly cgroups: readonly string[]
}

export interface ContainerWatchOptions {
  readonly containers: readonly ChosenContainer[]
  /** A container of that name is another one now. Called again with the next one only when this has resolved; if it rejects, the move is told again. */
  readonly onMoved: (name: string, from: readonly string[], to: readonly string[]) => Promise<void>
  /** Default: as at the choice, docker and podman are asked with the rights of who runs this. Rejects while there is none. */
  readonly find?: (name: string) => Promise<readonly string[]>
}

/** Looking costs a few calls of the kernel; asking, a run of somebody else's program. A container's cgroup is there before its daemon says that it runs. */
const lookEvery = 250
const soonAfter = 2000
const askEvery = { soon: 500, else: 5000 } as const

/**
 * Notices that a chosen container was made anew: its cgroup has gone and its name leads to another. It is the person's process that asks, as it did when they chose; the helper
 * knows paths alone, and gets the new one by an ordinary change. Asked is only while one is gone: soon after something came or went where it was, else every few seconds.
 */
export class ContainerWatch {
  readonly #options: ContainerWatchOptions
  readonly #chosen = new Map<string, readonly string[]>()
  readonly #gone = new Map<string, { readonly seen: string; readonly seenAt: number; readonly askedAt: number }>()
  #timer: NodeJS.Timeout | undefined
  #started = false
  #looking = false

  constructor(options: ContainerWatchOptions) {
    this.#options = options
    this.add(options.containers)
  }

  /** Chosen later, by the same rules; a name that was there leads to these now. */
  add(containers: readonly ChosenContainer[]): void {
    for (const { name, cgroups } of containers) {
      // One that was typed by its id is itself for ever.
      if (/^[0-9a-f]{12,64}$/.test(name)) continue
      this.#chosen.set(name, cgroups)
      this.#gone.delete(name)
    }
    if (this.#started) this.start()
  }

  start(): void {
    this.#started = true
    if (this.#chosen.size > 0) this.#timer ??= setInterval(() => void this.#look(), lookEvery)
  }

  stop(): void {
    this.#started = false
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  async #look(): Promise<void> {
    if (this.#looking) return
    this.#looking = true
    try {
      for (const [name, cgroups] of this.#chosen) await this.#lookAt(name, cgroups)
    } finally {
      this.#looking = false
    }
  }

  async #lookAt(name: string, cgroups: readonly string[]): Promise<void> {
    const { prefix = '' } = (await cgroupPlace()) ?? {}
    if (Object.keys(readCgroupIds(prefix, cgroups)).length > 0) {
      this.#gone.delete(name)
      return
    }
    const parents = [...new Set(cgroups.map((path) => join(mountPoint, prefix, dirname(path))))]
    const seen = JSON.stringify(await Promise.all(parents.map((parent) => readdir(parent).catch(() => []))))
    const [before, now] = [this.#gone.get(name), performance.now()]
    const seenAt = before?.seen === seen ? before.seenAt : now
    const wait = now - seenAt < soonAfter ? askEvery.soon : askEvery.else
    const isDue = before === undefined || now - before.askedAt >= wait
    this.#gone.set(name, { seen, seenAt, askedAt: isDue ? now : before.askedAt })
    if (!isDue) return
    const found = await (this.#options.find ?? findContainerCgroups)(name).catch(() => undefined)
    if (found === undefined || found.every((path) => cgroups.includes(path)) || this.#timer === undefined) return
    const moved = await this.#options.onMoved(name, cgroups, found).then(() => true, () => false)
    if (!moved) return
    this.#chosen.set(name, found)
    this.#gone.delete(name)
  }
}

let place: ReturnType<typeof listCgroups> | undefined
/** Where the hierarchy is does not change. */
function cgroupPlace(): ReturnType<typeof listCgroups> {
  return (place ??= listCgroups())
}
