import { saidOfCgroup } from '#core/plan/describeCgroup.ts'
import type { RuleSet } from '#core/rules/ruleSet.ts'

type Seen = Pick<RuleSet, 'sets' | 'cgroupIds'>

/** A service that fails and starts over and over is spoken of so often within so many milliseconds. */
const mostOften = 6
const within = 60_000

/** Tells a person when a chosen cgroup is not there, and when it is there again. */
export class CgroupNewsTeller {
  readonly #say: (code: 'cgroup-gone' | 'cgroup-back', message: string) => void
  readonly #saidAt = new Map<string, number[]>()
  #before: Seen['cgroupIds']
  #chosen: ReadonlySet<string> = new Set()

  constructor(say: (code: 'cgroup-gone' | 'cgroup-back', message: string) => void) {
    this.#say = say
  }

  /** A choice that is new, with what there is of it; what was chosen before is spoken of by `tell`. */
  begin({ sets, cgroupIds }: Seen): void {
    for (const { path } of sets.cgroups) {
      if (this.#chosen.has(path)) continue
      if (!this.#saidAt.has(path)) this.#saidAt.set(path, [])
      if (cgroupIds !== undefined && !Object.hasOwn(cgroupIds, path)) this.#say('cgroup-gone', saidOfCgroup(path, 'missing'))
    }
    this.#before = cgroupIds
    this.#chosen = new Set(sets.cgroups.map(({ path }) => path))
  }

  tell({ sets, cgroupIds = {} }: Seen): void {
    const before = this.#before ?? {}
    this.#before = cgroupIds
    const now = performance.now()
    for (const { path } of sets.cgroups) {
      if (!this.#chosen.has(path) || before[path] === cgroupIds[path]) continue
      const said = this.#saidAt.get(path)?.filter((at) => now - at < within)
      if (said === undefined) continue
      this.#saidAt.set(path, said)
      if (said.length >= mostOften) continue
      said.push(now)
      const quiet = said.length === mostOften ? ' It ends and starts again and again: no more is said of that for a while.' : ''
      if (cgroupIds[path] === undefined) this.#say('cgroup-gone', saidOfCgroup(path, 'ended') + quiet)
      else this.#say('cgroup-back', saidOfCgroup(path, 'back') + quiet)
    }
  }
}
