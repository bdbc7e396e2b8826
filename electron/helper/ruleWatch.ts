import { setTimeout as wait } from 'node:timers/promises'

import { Failure } from '#core/contract/failure.ts'
import type { Backend } from '#core/plan/plan.ts'
import { linkLocalNetwork } from '#core/rules/names.ts'
import type { RuleSet } from '#core/rules/ruleSet.ts'
import { listManagers } from '#probe/managers.ts'

import { logAction } from './actionLog.ts'
import { listed } from './listed.ts'
import { listenToNft } from './nftChanges.ts'
import { startMonitor } from './monitor.ts'
import type { Monitor } from './monitor.ts'
import type { ProcessIdentity } from './processIdentity.ts'
import { restartWait } from './restartWait.ts'
import type { RuleKeeper } from './ruleKeeper.ts'
import { findTool, isOwnTool } from './runTool.ts'
import { inspectRoutes, repairRoutes } from './watchRoutes.ts'

export interface RuleWatchOptions {
  readonly backend: Backend
  readonly routed: Pick<RuleSet, 'families' | 'routing'>
  readonly keeper: Pick<RuleKeeper, 'holder' | 'inspect' | 'repair'>
  /** A process of the watch's that must not outlive the helper. */
  readonly onProcess: (process: ProcessIdentity) => void
  /** Somebody took something away; it is back. One sentence for a person. */
  readonly onRestored: (message: string) => void
  /** It was taken away too often, or could not be put back. */
  readonly onGivenUp: (failure: Failure) => void
}

/** Whoever removes rules removes several, one after another: they are looked at once, when they have had their time. */
const settleTime = 100
/** How long a person's message waits for who it was; everything is back by then. */
const namedWithin = 500
/** Losses so near to one another are one event. */
const sameEvent = 1000
/** So many events within so long are a fight, which nobody wins. */
const fightEvents = 3
const fightTime = 10_000
/** Whoever takes several things away may not be done while the first are put back: what fails so often, one after another, cannot be. */
const mostFailures = 3
const nothing = { rules: [], routes: [] } as const
/** A look without being told, in case a monitor is frozen or missed something (its socket's buffer is finite). iptables-legacy tells nobody anything. */
const lookEvery = { told: 5000, untold: 400 } as const

/**
 * Notices what others do to our rules and routes while the gate is open, and puts it back: told by `ip monitor` and `nft monitor` within milliseconds, and by looking. What was
 * taken away three times in ten seconds is left to whoever wants it so: the gate is to close.
 */
export class RuleWatch {
  readonly #options: RuleWatchOptions
  readonly #monitors = new Map<string, Monitor>()
  #stopped = false
  #settle: NodeJS.Timeout | undefined
  #timer: NodeJS.Timeout | undefined
  #looking: Promise<boolean> = Promise.resolve(false)
  #events: number[] = []
  /** What was lost and could not be put back at once; it is said when it is. */
  #owed: { readonly rules: readonly string[]; readonly routes: readonly string[] } = nothing
  #failures = 0
  readonly #restarts = new Map<string, NodeJS.Timeout>()
  #lookedAt = 0
  /** Who else last changed something of ours in nftables, as nft names it; it counts only if rules are lost. */
  #suspect: string | undefined

  constructor(options: RuleWatchOptions) {
    this.#options = options
  }

  start(): void {
    const { backend, routed, keeper } = this.#options
    const ip = findTool('ip')
    const nft = findTool('nft')
    const { table, protocol } = routed.routing
    if (ip !== undefined) {
      // Those of interfaces go with them, and come by themselves (linkLocalRoutes.ts).
      const ours = [`proto ${String(protocol)}`, `table ${String(table)}`, `lookup ${String(table)}`]
      this.#watch('ip', [ip, '-N', 'monitor', 'rule', 'route'], (line) => line.includes('Deleted') && !line.includes(linkLocalNetwork) && ours.some((word) => line.includes(word)) && this.#stir())
    }
    const nftTells = backend === 'iptables' || (backend === 'nft' && keeper.holder === undefined)
    if (nft !== undefined && nftTells) {
      this.#watch('nft', [nft, 'monitor'], listenToNft(backend, isOwnTool, (who) => {
        this.#suspect = who
        this.#stir()
      }))
    }
    const untold = ip === undefined || backend === 'iptables-legacy' || (nftTells && nft === undefined)
    this.#timer = setInterval(() => {
      // Whoever waits for its monitor is told nothing meanwhile.
      if (untold || this.#restarts.size > 0 || performance.now() - this.#lookedAt >= lookEvery.told) void this.look()
    }, lookEvery.untold)
  }

  /** Resolves when nothing is being put back any more, so that taking back does not race with it. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#settle)
    clearInterval(this.#timer)
    for (const restart of this.#restarts.values()) clearTimeout(restart)
    this.#restarts.clear()
    for (const monitor of this.#monitors.values()) monitor.stop()
    this.#monitors.clear()
    await this.#looking
  }

  /** Looks now and puts back what is lost. True: something was. Never rejects. */
  look(): Promise<boolean> {
    this.#lookedAt = performance.now()
    this.#looking = this.#looking.then(() => (this.#stopped ? false : this.#look().catch((error: unknown) => this.#giveUp('rules could not be looked at', error))))
    return this.#looking
  }

  async #look(): Promise<boolean> {
    const { keeper, routed } = this.#options
    const rules = [...new Set([...this.#owed.rules, ...(await keeper.inspect())])]
    const routes = [...new Set([...this.#owed.routes, ...(await inspectRoutes(routed))])]
    const lost = [...rules, ...routes]
    if (lost.length === 0 || this.#isStopped()) return false
    const now = performance.now()
    const last = this.#events.at(-1)
    // What could not be put back yet is still missing, however slowly it is tried again: nobody took it away once more.
    if (this.#failures === 0 && (last === undefined || now - last > sameEvent)) this.#events = [...this.#events.filter((each) => now - each < fightTime), now]
    const what = listed(lost)
    const who = this.#blame(rules.length > 0)
    if (this.#events.length >= fightEvents) {
      this.#giveUp(`somebody else took away ${what} for the ${ordinal(this.#events.length)} time in ten seconds${who}`)
      return true
    }
    logAction({ result: 'note', text: `somebody else took away ${what}${who}; putting it back` })
    // Families are looked at one beside the other: what was taken just behind a look is put back all the same, and told.
    const found: string[] = []
    try {
      found.push(...(await keeper.repair()))
      if (!this.#isStopped()) found.push(...(await repairRoutes(routed)))
    } catch (error) {
      this.#owed = { rules, routes }
      this.#failures += 1
      if (this.#failures < mostFailures) this.#stir()
      else this.#giveUp(`somebody else took away ${what}${who}, and it cannot be put back`, error)
      return true
    }
    this.#owed = nothing
    this.#failures = 0
    // A look of the timer's may have been quicker than nft's word of who it was.
    if (rules.length > 0) await this.#untilNamed()
    if (!this.#isStopped()) this.#options.onRestored(`Somebody else took away ${listed([...new Set([...found, ...lost])])}${this.#blame(rules.length > 0)}; it was put back.`)
    return true
  }

  #giveUp(message: string, error?: unknown): true {
    if (!this.#stopped) this.#options.onGivenUp(new Failure('rules-taken', message, error instanceof Error ? error.message : undefined))
    this.#stopped = true
    return true
  }

  /** Asked anew after each wait. */
  #isStopped(): boolean {
    return this.#stopped
  }

  async #untilNamed(): Promise<void> {
    const end = performance.now() + namedWithin
    while (this.#monitors.has('nft') && this.#suspect === undefined && !this.#isStopped() && performance.now() < end) await wait(20)
  }

  /** nft names the process; of ip nobody knows, so who is known to do such things and runs here is named as what it is: a guess. */
  #blame(forRules: boolean): string {
    if (forRules && this.#suspect !== undefined) return ` (${this.#suspect})`
    const managers = listManagers()
    return managers.length === 0 ? '' : ` (here ${managers.length === 1 ? 'runs' : 'run'} ${managers.join(', ')})`
  }

  #stir(): void {
    if (this.#stopped || this.#settle !== undefined) return
    this.#settle = setTimeout(() => {
      this.#settle = undefined
      void this.look()
    }, settleTime)
  }

  #watch(name: string, words: readonly [string, ...string[]], onLine: (line: string) => void, waited = 0): void {
    if (this.#stopped) return
    const begun = performance.now()
    const monitor = startMonitor(words, onLine, () => {
      if (this.#stopped) return
      const wait = restartWait(performance.now() - begun, waited)
      const restart = setTimeout(() => {
        this.#restarts.delete(name)
        this.#watch(name, words, onLine, wait)
        // While it was away something may have happened.
        this.#stir()
      }, wait)
      this.#restarts.set(name, restart)
    })
    this.#monitors.set(name, monitor)
    if (monitor.identity !== undefined) this.#options.onProcess(monitor.identity)
  }
}

function ordinal(count: number): string {
  return count === 2 ? 'second' : count === 3 ? 'third' : `${String(count)}th`
}
