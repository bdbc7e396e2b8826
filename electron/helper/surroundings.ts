import { bridgesCallRules } from '#probe/bridges.ts'
import { isLenientLo } from '#probe/lenientLo.ts'
import { readInputFirewalls } from '#probe/inputFirewalls.ts'
import type { InputFirewall } from '#probe/inputFirewalls.ts'

export interface SurroundingsOptions {
  /** As it was when the gate was opened. */
  readonly lenient: boolean
  readonly bridgesCall: boolean
  /** Firewalls that were spoken of at opening. */
  readonly firewalls: readonly InputFirewall[]
  /** The mark that must pass them; undefined: nothing of others is diverted now, and no firewall need be asked. */
  readonly mark: () => number | undefined
  /** lo began (false: ceased) to let in what the relay sends again. */
  readonly onLenience: (lenient: boolean) => void
  /** Bridges began (false: ceased) to show the rules of IP what they carry. */
  readonly onBridges: (call: boolean) => void
  /** These drop what is diverted, and did not before; never empty. */
  readonly onFirewalls: (firewalls: readonly InputFirewall[]) => void
}

/** Half a dozen small files of /proc. */
const lookEvery = 1000
const firewallsEvery = 3000
/** A firewall of ten thousand rules is long to list: no more than a fiftieth of the time goes into that. */
const firewallShare = 50

/**
 * Notices while the gate is open what others do that breaks diverted flows without touching a rule of ours: a VPN tool makes lo's reverse-path check strict, a firewall starts
 * to drop what comes in. Nobody tells of a sysctl, so it looks.
 */
export class Surroundings {
  readonly #options: SurroundingsOptions
  #lenient: boolean
  #bridgesCall: boolean
  #told: ReadonlySet<string>
  #timer: NodeJS.Timeout | undefined
  #reading: Promise<void> | undefined
  #readAt = performance.now() + firewallsEvery

  constructor(options: SurroundingsOptions) {
    this.#options = options
    this.#lenient = options.lenient
    this.#bridgesCall = options.bridgesCall
    this.#told = new Set(options.firewalls.map(({ chain }) => chain))
  }

  start(): void {
    this.#timer = setInterval(() => this.#look(), lookEvery)
  }

  /** Nothing is told and no tool of its runs any more. */
  async stop(): Promise<void> {
    clearInterval(this.#timer)
    this.#timer = undefined
    await this.#reading
  }

  /** Asks the firewalls soon, and speaks of all that drop: more, or other flows are diverted than before. */
  tellFirewallsAnew(): void {
    this.#told = new Set()
    this.#readAt = 0
  }

  /** Never rejects. */
  #lookAtFirewalls(): Promise<void> {
    this.#reading ??= this.#readFirewalls()
      .catch(() => undefined)
      .finally(() => (this.#reading = undefined))
    return this.#reading
  }

  #look(): void {
    const lenient = isLenientLo()
    if (lenient !== this.#lenient) {
      this.#lenient = lenient
      this.#options.onLenience(lenient)
    }
    const bridgesCall = bridgesCallRules()
    if (bridgesCall !== this.#bridgesCall) {
      this.#bridgesCall = bridgesCall
      this.#options.onBridges(bridgesCall)
    }
    if (performance.now() >= this.#readAt) void this.#lookAtFirewalls()
  }

  async #readFirewalls(): Promise<void> {
    const begun = performance.now()
    const [mark, before] = [this.#options.mark(), this.#told]
    const dropping = mark === undefined ? [] : (await readInputFirewalls(mark)).filter(({ letsPass }) => !letsPass)
    const now = performance.now()
    // Asked for anew meanwhile: what was found is from before that.
    if (this.#timer === undefined || this.#told !== before) return
    this.#readAt = now + Math.max(firewallsEvery, firewallShare * (now - begun))
    const news = dropping.filter(({ chain }) => !this.#told.has(chain))
    // One that was mended and broken again is news.
    this.#told = new Set(dropping.map(({ chain }) => chain))
    if (news.length > 0) this.#options.onFirewalls(news)
  }
}
