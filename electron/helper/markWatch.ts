import { findMarkConflicts } from '#probe/conflicts.ts'
import type { InterceptionPlan } from '#core/plan/plan.ts'

export interface MarkWatchOptions {
  /** Of the gate; they cannot change while it is open. */
  readonly marks: InterceptionPlan['marks']
  /** A sentence for a person, once for each finding; one that went and came back is news. */
  readonly onFound: (message: string) => void
}

const lookEvery = 3000
/** Rules by the ten thousand are long to list: no more than a fiftieth of the time goes into that. */
const share = 50

/**
 * Notices rules of others that come while the gate is open and look at, or write, mark bits of ours: before opening they are a refusal (probe/conflicts.ts), now only whoever made them can take them
 * away. It looks and is not woken: old iptables tells nobody, and a monitor of nftables would be woken by each renewal of our own lease.
 */
export class MarkWatch {
  readonly #options: MarkWatchOptions
  #told: ReadonlySet<string> = new Set()
  #timer: NodeJS.Timeout | undefined
  #looking: Promise<void> = Promise.resolve()
  #stopped = false

  constructor(options: MarkWatchOptions) {
    this.#options = options
  }

  start(): void {
    this.#wait(lookEvery)
  }

  /** No tool of its runs any more and nothing is told. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#looking
  }

  #wait(milliseconds: number): void {
    if (this.#stopped) return
    this.#timer = setTimeout(() => {
      const begun = performance.now()
      this.#looking = this.#look()
        // A tool that fails once is asked again.
        .catch(() => undefined)
        .then(() => this.#wait(Math.max(lookEvery, share * (performance.now() - begun))))
    }, milliseconds)
  }

  async #look(): Promise<void> {
    const { looking, writing, free } = await findMarkConflicts(this.#options.marks)
    if (this.#stopped) return
    const mend = `To mend it, take that rule away, or close the gate and open it with other marks${free === undefined ? '' : ` (${free})`}.`
    const found = new Map([
      ...looking.map((rule) => [rule, `An ip rule of somebody else's that came while the gate is open looks at mark bits of Sluice's: ${rule}.`] as const),
      ...writing.map((chain) => [chain, `A rule of somebody else's that came while the gate is open writes mark bits of Sluice's: ${chain}.`] as const),
    ])
    const told = this.#told
    this.#told = new Set(found.keys())
    for (const [finding, message] of found) if (!told.has(finding)) this.#options.onFound(`${message} Flows may go past Sluice, or nowhere. ${mend}`)
  }
}
