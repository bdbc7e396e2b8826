import { linkLocalNetwork } from '#core/rules/names.ts'
import { linkLocalRoute } from '#core/rules/renderRoutes.ts'
import type { RuleSet } from '#core/rules/ruleSet.ts'

import { logAction } from './actionLog.ts'
import { listed } from './listed.ts'
import { startMonitor } from './monitor.ts'
import type { Monitor } from './monitor.ts'
import type { ProcessIdentity } from './processIdentity.ts'
import { restartWait } from './restartWait.ts'
import { askTool, findTool, runTool } from './runTool.ts'
import type { ToolResult } from './runTool.ts'

export interface LinkLocalRoutesOptions {
  readonly routing: RuleSet['routing']
  /** A process that must not outlive the helper. */
  readonly onProcess: (process: ProcessIdentity) => void
  /** Somebody took one away from an interface that stayed as it was; it is back. One sentence for a person. */
  readonly onRestored: (message: string) => void
}

/** Whoever makes an interface gives it its addresses just after. */
const settleTime = 20
/** A look without being told, in case the monitor missed something. */
const lookEvery = 5000
/** Where containers come and go by the hundred, no more than a fifth of the time. */
const share = 4
const mostTries = 3
/** The kernel tells that a route went with its interface before it tells of the interface. */
const toldWithin = 1000

/**
 * Keeps our table's route for each interface that has a link-local address of IPv6, while such flows may be relayed (`core/rules/linkLocal.ts`). The kernel takes such a route away with
 * its interface, and when that goes down; that an interface came, or has an address again, `ip monitor` tells. Until its route is there its flows go direct.
 */
export class LinkLocalRoutes {
  readonly #options: LinkLocalRoutesOptions
  #state: 'idle' | 'kept' | 'stopped' = 'idle'
  #monitor: Monitor | undefined
  #restart: NodeJS.Timeout | undefined
  #timer: NodeJS.Timeout | undefined
  #next: NodeJS.Timeout | undefined
  #looking: Promise<void> = Promise.resolve()
  #restUntil = 0
  /** Interfaces that somebody may have taken the route of, and who is to be told. */
  readonly #robbed = new Set<string>()
  #telling: NodeJS.Timeout | undefined
  /** In a row, and in vain: that the kernel will not have one is not asked, and logged, for ever. */
  readonly #tries = new Map<string, number>()

  constructor(options: LinkLocalRoutesOptions) {
    this.#options = options
  }

  /** Resolves when the routes of now stand. Idempotent; never rejects. */
  async keep(): Promise<void> {
    if (this.#state !== 'idle') return this.#looking
    this.#state = 'kept'
    this.#watch(0)
    this.#timer = setInterval(() => this.stir(), lookEvery)
    await this.#look()
  }

  /** They are gone and stay so. Idempotent; never rejects. */
  async remove(): Promise<void> {
    const kept = this.#state === 'kept'
    this.#state = 'stopped'
    this.#monitor?.stop()
    clearTimeout(this.#restart)
    clearTimeout(this.#next)
    clearInterval(this.#timer)
    await this.#looking
    clearTimeout(this.#telling)
    const ip = findTool('ip')
    if (!kept || ip === undefined) return
    const { table, protocol } = this.#options.routing
    await runTool(ip, ['-6', 'route', 'flush', 'exact', linkLocalNetwork, 'table', String(table), 'protocol', String(protocol)])
  }

  #watch(waited: number): void {
    const ip = findTool('ip')
    if (this.#state !== 'kept' || ip === undefined) return
    const begun = performance.now()
    const ours = `table ${String(this.#options.routing.table)} `
    this.#monitor = startMonitor([ip, '-6', '-N', 'monitor', 'label', 'address', 'link', 'route'], (line) => {
      if (!line.startsWith('[ROUTE]')) {
        // One of an address or an interface, or it goes on with what was said of it. What went with that nobody took.
        this.#robbed.clear()
        this.stir()
      } else if (line.startsWith('[ROUTE]Deleted ') && line.includes(` ${linkLocalNetwork} `) && line.includes(ours)) {
        const device = / dev (\S+)/.exec(line)?.[1]
        if (device !== undefined) this.#robbed.add(device)
        this.stir()
      }
    }, () => {
      const wait = restartWait(performance.now() - begun, waited)
      this.#restart = setTimeout(() => {
        this.#watch(wait)
        this.stir()
      }, wait)
    })
    if (this.#monitor.identity !== undefined) this.#options.onProcess(this.#monitor.identity)
  }

  /** Somebody may have taken one away. */
  stir(): void {
    if (this.#state !== 'kept' || this.#next !== undefined) return
    this.#next = setTimeout(() => {
      this.#next = undefined
      void this.#look()
    }, Math.max(settleTime, this.#restUntil - performance.now()))
  }

  #look(): Promise<void> {
    // A tool that fails once is asked again.
    this.#looking = this.#looking.then(async () => {
      const begun = performance.now()
      await this.#mend().catch(() => undefined)
      const now = performance.now()
      this.#restUntil = now + share * (now - begun)
    })
    return this.#looking
  }

  async #mend(): Promise<void> {
    const ip = findTool('ip')
    if (this.#state !== 'kept' || ip === undefined) return
    const { routing } = this.#options
    const [wanted, routes] = await Promise.all([
      listLinkLocalDevices(),
      askTool(ip, ['-j', '-6', 'route', 'show', 'exact', linkLocalNetwork, 'table', String(routing.table), 'protocol', String(routing.protocol)]),
    ])
    const there = entriesOf(routes).map(({ dev }) => dev)
    for (const name of this.#tries.keys()) if (there.includes(name) || !wanted.includes(name)) this.#tries.delete(name)
    const missing = wanted.filter((name) => !there.includes(name) && (this.#tries.get(name) ?? 0) < mostTries)
    for (const name of missing) this.#tries.set(name, (this.#tries.get(name) ?? 0) + 1)
    if (missing.length === 0 || this.#isStopped()) return
    // -force: one may have gone meanwhile.
    await runTool(ip, ['-6', '-force', '-batch', '-'], { input: missing.map((name) => `${linkLocalRoute(routing, name).slice(1).join(' ')}\n`).join('') })
    if (missing.some((name) => this.#robbed.has(name))) this.#telling ??= setTimeout(() => this.#tell(), toldWithin)
  }

  #tell(): void {
    this.#telling = undefined
    const names = [...this.#robbed]
    this.#robbed.clear()
    if (names.length === 0 || this.#isStopped()) return
    const message = `Somebody else took away the link-local route of ${listed(names)}; it was put back.`
    logAction({ result: 'note', text: message })
    this.#options.onRestored(message)
  }

  /** Asked anew after each wait. */
  #isStopped(): boolean {
    return this.#state === 'stopped'
  }
}

/** Interfaces that have such an address, in their order. In `ip -batch` quotes and # have a meaning: flows by an interface that is called so go direct. */
export async function listLinkLocalDevices(): Promise<string[]> {
  const ip = findTool('ip')
  const entries = ip === undefined ? [] : entriesOf(await askTool(ip, ['-j', '-6', 'address', 'show', 'scope', 'link']))
  return entries.flatMap(({ ifname, addr_info: held = [] }) => (ifname !== undefined && ifname !== 'lo' && /^\w[\w.:@+-]*$/.test(ifname) && held.some(({ scope }) => scope === 'link') ? [ifname] : []))
}

/** What `ip -j` lists; some of its versions name an entry it leaves out by an empty object. */
interface Entry {
  readonly ifname?: string
  readonly addr_info?: readonly { readonly scope?: string }[]
  readonly dev?: string
}

/** Nothing where it failed: the kernel has no IPv6, or no such table. */
function entriesOf({ exitCode, stdout }: ToolResult): readonly Entry[] {
  return exitCode === 0 ? (JSON.parse(stdout.trim() || '[]') as readonly Entry[]) : []
}
