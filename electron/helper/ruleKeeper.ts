import { setTimeout } from 'node:timers/promises'

import { Failure } from '#core/contract/failure.ts'
import type { Backend } from '#core/plan/plan.ts'
import { chainPrefix, iptablesTables, nftFamily, nftTable } from '#core/rules/names.ts'
import type { IptablesTable } from '#core/rules/names.ts'
import { describeLoss, isWhole, ownLines, repairIptables } from '#core/rules/repairIptables.ts'
import { drainRules } from '#core/rules/compileRules.ts'
import { renderIptables, renderIptablesChange, sweepIptables, tablesOf } from '#core/rules/renderIptables.ts'
import type { IptablesState, IptablesTexts } from '#core/rules/renderIptables.ts'
import { renderNft, renderNftChange } from '#core/rules/renderNft.ts'
import { oldPortsFor } from '#core/rules/ruleSet.ts'
import type { Family, OldUdp, RuleSet } from '#core/rules/ruleSet.ts'

import { logAction } from './actionLog.ts'
import { startNftHolder } from './nftHolder.ts'
import type { NftHolder } from './nftHolder.ts'
import type { ProcessIdentity } from './processIdentity.ts'
import { askTool, requireTool, runTool } from './runTool.ts'
import { restoreBase } from './takeBack.ts'
import type { BaseChains } from './takeBack.ts'

/** What the gate does with its rules, whichever tool holds them. Every method may be called again. */
export interface RuleKeeper {
  /** The process whose death takes the rules away, if the backend has such a thing. */
  readonly holder: ProcessIdentity | undefined
  /** From now on new flows are taken. */
  load(signal: AbortSignal): Promise<void>
  /** Another `leaseSeconds` of taking; only where rules have a lease. */
  renew(): Promise<void>
  /** No new flow is taken; relayed ones keep what they need. */
  drain(): Promise<void>
  /**
   * To other rules while flows run; also what ends a draining. Done in one transaction (one a family on iptables), or not at all. `before`: what the change needs to know of
   * the UDP that is there; it is taken only after that settling.
   */
  change(next: RuleSet, before: UdpBefore, signal: AbortSignal): Promise<void>
  /** Everything of ours gone. */
  remove(): Promise<void>
  /** What of ours is gone or not as it was left, one line each for a person; empty: all is well. Never sees a change of our own half done. */
  inspect(): Promise<readonly string[]>
  /** All as it should be now, in one transaction a family; relayed flows do not notice. Resolves to what it found amiss, in the words of `inspect`: more than that did where somebody was just at it. */
  repair(): Promise<readonly string[]>
  /** The rules went without being asked to. */
  onLoss(listener: () => void): void
}

/** Long enough for one missed renewal, short enough that a person does not reach for the plug. */
export const leaseSeconds = 4

/**
 * On iptables the lease is a time of the wall clock, written anew every few seconds (a run of a tool a family): the last resort, for when helper and guard are both killed. It outlives
 * neither a suspend nor a clock set forward; then nothing is taken until the next renewal.
 */
const iptablesLease = { seconds: 12, every: 4000 } as const

/** For changes of one element or a few chains, milliseconds: who holds rules and takes longer is stuck. */
const smallWithin = 3000

export interface UdpBefore {
  /** Milliseconds between loading rules and taking, in which conntrack (which runs only since then) learns what UDP is under way. */
  readonly settle: number
  /** Asked when about to take. */
  readonly listOldUdp: () => Promise<OldUdp>
}
/** Nothing has to be known: conntrack has been watching. */
export const udpKnown: UdpBefore = { settle: 0, listOldUdp: () => Promise.resolve({ connected: [], ports: [] }) }

/** A change was refused, and so was what takes back the part of it that had been done: the rules are neither the old ones nor the new. */
export class HalfChange extends Failure {}

/** @throws the refusal; HalfChange where going back fails as well */
async function goBack(refusal: unknown, back: () => Promise<void>): Promise<never> {
  try {
    await back()
  } catch (error) {
    throw new HalfChange('rules-failed', 'a change of the rules was refused, and so was taking back what of it was done', [refusal, error].map((each) => (each instanceof Failure ? `${each.message}: ${each.detail ?? ''}` : String(each))).join('\n'))
  }
  throw refusal
}

export interface KeeperOptions extends UdpBefore {
  readonly relayPort: number
  /** nft tables may be owned by a process. */
  readonly owner: boolean
  /** The relay sends held SYNs again. */
  readonly holds: boolean
  /** Of the listener for flows that keep their clients' ports. */
  readonly keptPort: number | undefined
  /** What of iptables-nft's tables stood there before us. */
  readonly base: Bases
}

export type Bases = Readonly<Record<IptablesTable, { readonly ipv4: BaseChains; readonly ipv6: BaseChains }>>

export async function makeRuleKeeper(backend: Backend, ruleSet: RuleSet, options: KeeperOptions): Promise<RuleKeeper> {
  if (backend !== 'nft') return makeIptablesKeeper(backend, ruleSet, options)
  const nft = requireTool('nft')
  return makeNftKeeper(nft, ruleSet, options, options.owner ? await startNftHolder(nft) : undefined)
}

/** What stands after draining: chains that take are empty, those of their long lists stay where they were. */
function drainedLoad(load: string, drain: string): string {
  const emptied = new Set([...drain.matchAll(/^:(\S+)/gm)].map(([, chain]) => chain))
  return load.split('\n').filter((line) => !emptied.has(/^-A (\S+)/.exec(line)?.[1])).join('\n')
}

/** One after another, so that an inspection never sees half of a change. */
function makeQueue(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  return (work) => {
    const result = last.then(work)
    last = result.catch(() => undefined)
    return result
  }
}

/** Without `flags owner` (kernel before 5.12) each change is a run of nft, and the guard takes the table back when the helper dies. */
function makeNftKeeper(nft: string, ruleSet: RuleSet, { relayPort, keptPort, owner, holds, settle, listOldUdp }: KeeperOptions, holder: NftHolder | undefined): RuleKeeper {
  const rendering = { relayPort, keptPort, owner, holds, leaseSeconds }
  /** As when taking, also while drained. */
  let wanted = ruleSet
  let texts = renderNft(ruleSet, rendering)
  const queue = makeQueue()
  let state: 'none' | 'taking' | 'drained' = 'none'
  let { arm } = texts
  let reference = ''
  const run = async (text: string, { signal, within, everySecond = false }: { signal?: AbortSignal; within?: number; everySecond?: boolean } = {}): Promise<void> => {
    if (holder !== undefined) {
      const work = holder.run(text, within)
      if (everySecond) return work
      // One command a line, as a person reads it.
      const input = text.replace(/; (?=(?:add|flush|delete) )/g, '\n')
      await work.then(
        () => logAction({ result: 'ok', text: `${nft} -i`, input }),
        (error: unknown) => {
          logAction({ result: 'failed', text: `${nft} -i`, input, said: error instanceof Failure ? `${error.message}: ${error.detail ?? ''}` : String(error) })
          throw error
        },
      )
      return
    }
    const result = await (everySecond ? askTool : runTool)(nft, ['-f', '-'], { input: text, ...(signal === undefined ? {} : { signal }) })
    if (result.exitCode !== 0) throw new Failure('rules-failed', 'nft refused the rules', result.stderr.slice(0, 4000))
  }
  /** Without what comes and goes by itself: the lease, old ports, and the name of a cgroup, which becomes a number when that has gone. */
  const list = async (): Promise<string> => {
    const listed = await askTool(nft, ['--stateless', 'list', 'table', nftFamily, nftTable])
    return listed.exitCode === 0 ? listed.stdout.replace(/\tset (?:lease|old_udp_ports) \{[\s\S]*?\n\t\}\n/g, '').replace(/(socket cgroupv2 level \d+) (?:"[^"]*"|\S+)/g, '$1') : ''
  }
  /** Taken away between a change of ours and this look, it is not how we left it: then nothing that is found is. */
  const refer = async (): Promise<void> => {
    reference = (await list()) || 'gone'
  }
  const remember = async (now: typeof state): Promise<void> => {
    state = now
    // A table with an owner can be changed through the owner alone: the kernel sees to it.
    if (holder === undefined) await refer()
  }
  return {
    holder: holder?.identity,
    load: (signal) =>
      queue(async () => {
        await run(texts.load, { signal })
        await settled(settle, signal)
        arm = renderNft(ruleSet, { ...rendering, oldUdp: await listOldUdp() }).arm
        await run(arm, { signal })
        await remember('taking')
      }),
    // Not through the queue: a renewal that fails because the table is gone must not wait for its repair; nft itself takes one at a time.
    renew: () => run(texts.renew, { within: smallWithin, everySecond: true }),
    drain: () =>
      queue(async () => {
        await run(texts.drain, { within: smallWithin })
        await remember('drained')
      }),
    change: (next, before, signal) =>
      queue(async () => {
        const shift = async (to: RuleSet): Promise<void> => {
          const text = renderNftChange(state === 'drained' ? drainRules(wanted) : wanted, to, rendering)
          if (text !== '') await run(text)
          wanted = to
          texts = renderNft(to, rendering)
          arm = texts.arm
          state = 'taking'
        }
        const old = wanted
        try {
          if (before.settle > 0) await shift(withoutUdp(next))
          await settled(before.settle, signal)
          const oldUdp = await before.listOldUdp()
          await shift(next)
          await run(renderNft(next, { ...rendering, oldUdp }).arm, { within: smallWithin })
        } catch (error) {
          // Each step is a transaction of its own.
          if (wanted === old || signal.aborted) throw error
          return await goBack(error, async () => {
            await shift(old)
            await remember('taking')
          })
        }
        await remember('taking')
      }),
    remove: () =>
      queue(async () => {
        state = 'none'
        // Through its owner first: nft answers when the kernel has done it. Then the owner goes, which is enough by itself.
        if (holder === undefined) await run(texts.remove)
        else {
          await run(`delete table ${nftFamily} ${nftTable}`, { within: smallWithin }).catch(() => undefined)
          await holder.end()
        }
      }),
    inspect: async () => {
      if (holder !== undefined) return []
      return queue(async () => {
        if (state === 'none') return []
        const found = await list()
        if (found === reference) return []
        return [found === '' ? `the nft table ${nftFamily} ${nftTable}` : `something in the nft table ${nftFamily} ${nftTable}`]
      })
    },
    repair: () =>
      queue(async () => {
        if (holder !== undefined || state === 'none') return []
        const again = [texts.remove, texts.load, state === 'taking' ? arm : texts.drain]
        await run(`${again.map((text) => text.trim()).join('; ')}\n`)
        await refer()
        return []
      }),
    onLoss: (listener) => holder?.onDeath(listener),
  }
}

/** The same without taking UDP, for the time in which conntrack looks round. */
function withoutUdp(ruleSet: RuleSet): RuleSet {
  const takesUdp = ({ when }: RuleSet['chains'][number]['steps'][number]): boolean => when.some((match) => match.is === 'to-chosen-port' && match.transport === 'udp')
  return { ...ruleSet, chains: ruleSet.chains.map((chain) => (chain.takes === true ? { ...chain, steps: chain.steps.filter((step) => !takesUdp(step)) } : chain)) }
}

async function settled(milliseconds: number, signal: AbortSignal): Promise<void> {
  if (milliseconds > 0) await setTimeout(milliseconds, undefined, { signal })
  signal.throwIfAborted()
}

function leased(): { readonly until: number } {
  return { until: Math.ceil(Date.now() / 1000) + iptablesLease.seconds }
}

interface RestoreTool {
  readonly family: Family
  readonly restore: string
  readonly save: string
}

function makeIptablesKeeper(backend: 'iptables' | 'iptables-legacy', ruleSet: RuleSet, { relayPort, keptPort, holds, base, settle, listOldUdp }: KeeperOptions): RuleKeeper {
  const kind = backend === 'iptables' ? 'nft' : 'legacy'
  const tools: RestoreTool[] = ruleSet.families.map((family) => {
    const name = `${family === 'ipv4' ? 'iptables' : 'ip6tables'}-${kind}`
    return { family, restore: requireTool(`${name}-restore`), save: requireTool(`${name}-save`) }
  })
  const restore = async (tool: RestoreTool, input: string, { signal, everyFew = false }: { readonly signal?: AbortSignal; readonly everyFew?: boolean } = {}): Promise<void> => {
    const result = await (everyFew ? askTool : runTool)(tool.restore, ['--noflush', '-w', '5'], { input, ...(signal === undefined ? {} : { signal }) })
    if (result.exitCode !== 0) throw new Failure('rules-failed', `${tool.restore} refused the rules`, result.stderr.slice(0, 4000))
  }
  /** Each family is tried even where the other failed; the first failure is told at the end. */
  const each = async (work: (tool: RestoreTool) => Promise<void>): Promise<void> => {
    const failures: unknown[] = []
    for (const tool of tools) await work(tool).catch((error: unknown) => failures.push(error))
    if (failures.length > 0) throw failures[0]
  }
  const loaded = new Set<Family>()
  /** All that any rules so far have been in. */
  const everIn = new Set(tablesOf(ruleSet))
  const tables = (): IptablesTable[] => iptablesTables.filter((table) => everIn.has(table))
  /** As when taking, also while drained. */
  let wanted: IptablesState = { ruleSet, ...leased() }
  /** A kernel without xt_hl cannot ask for hops; one without xt_time knows no lease. Which it lacks is found by trying. */
  const hopless = new Set<Family>()
  const timeless = new Set<Family>()
  const stateFor = ({ until, ...state }: IptablesState, family: Family): IptablesState => ({ ...state, ...(hopless.has(family) ? { hopless: true } : {}), ...(until === undefined || timeless.has(family) ? {} : { until }) })
  const textsOf = ({ ruleSet: rules, ...state }: IptablesState, family: Family): IptablesTexts => renderIptables(rules, { relayPort, keptPort, holds, family, ...state })
  const texts = (family: Family): IptablesTexts => textsOf(stateFor(wanted, family), family)
  let forgetAt = Infinity
  let renewAt = 0
  const queue = makeQueue()
  const reference = new Map<Family, string[]>()
  let drained = false
  const save = async (tool: RestoreTool): Promise<string> => {
    const texts: string[] = []
    for (const table of tables()) {
      const saved = await askTool(tool.save, ['-t', table])
      if (saved.exitCode !== 0) throw new Failure('rules-failed', `${tool.save} failed`, saved.stderr.slice(0, 4000))
      texts.push(`${saved.stdout}\n`)
    }
    return texts.join('')
  }
  /** What somebody took away just before or during a change of ours must not be taken for how we left it. */
  const lacking = new Set<Family>()
  const remember = async (tool: RestoreTool): Promise<void> => {
    const found = ownLines(await save(tool))
    const { load, drain } = texts(tool.family)
    if (isWhole(drained ? drainedLoad(load, drain) : load, found)) lacking.delete(tool.family)
    else lacking.add(tool.family)
    reference.set(tool.family, found)
  }
  const lossOf = async (tool: RestoreTool): Promise<string[]> => {
    const expected = reference.get(tool.family)
    if (!loaded.has(tool.family) || expected === undefined) return []
    const family = tool.family === 'ipv4' ? 'IPv4' : 'IPv6'
    if (lacking.has(tool.family)) return [`rules of the chains ${chainPrefix}* (${family})`]
    const found = ownLines(await save(tool))
    return found.join('\n') === expected.join('\n') ? [] : [describeLoss(expected, found, family)]
  }
  /** Old ports do not time out by themselves here, so this also forgets them. */
  const shiftAll = async (to: IptablesState, { everyFew = false } = {}): Promise<void> => {
    for (const table of tablesOf(to.ruleSet)) everIn.add(table)
    const from = drained ? { ...wanted, ruleSet: drainRules(wanted.ruleSet) } : wanted
    const done: RestoreTool[] = []
    const shift = async (tool: RestoreTool, before: IptablesState, after: IptablesState): Promise<void> => {
      const text = renderIptablesChange(stateFor(before, tool.family), stateFor(after, tool.family), { relayPort, keptPort, holds, family: tool.family })
      if (text !== '') await restore(tool, text, { everyFew })
    }
    try {
      for (const tool of tools) {
        await shift(tool, from, to)
        done.push(tool)
      }
    } catch (error) {
      // Families are two transactions: what the first has done goes back, so that both say the same.
      if (done.length === 0) throw error
      return await goBack(error, async () => {
        for (const tool of done) await shift(tool, to, from)
      })
    }
    wanted = to
    drained = false
    renewAt = performance.now() + iptablesLease.every
    if (!everyFew) for (const tool of tools) await remember(tool)
  }
  /** The first text there is with what a kernel may lack; the lease is given up last. */
  const restoreFirst = async (tool: RestoreTool, text: () => string, signal: AbortSignal): Promise<void> => {
    let refusal: unknown
    for (const lacking of [[], [hopless], [hopless, timeless]]) {
      for (const each of lacking) each.add(tool.family)
      try {
        await restore(tool, text(), { signal })
        return
      } catch (error) {
        if (signal.aborted) throw error
        refusal = error
      }
    }
    throw refusal
  }
  return {
    holder: undefined,
    load: (signal) =>
      queue(async () => {
        for (const tool of tools) {
          signal.throwIfAborted()
          loaded.add(tool.family)
          await restoreFirst(tool, () => (ruleSet.sets.udp.length === 0 ? texts(tool.family).load : texts(tool.family).loadIdle), signal)
        }
        if (ruleSet.sets.udp.length > 0) {
          await settled(settle, signal)
          wanted = { ruleSet, oldUdp: await listOldUdp(), ...leased() }
          for (const tool of tools) {
            signal.throwIfAborted()
            await restoreFirst(tool, () => texts(tool.family).arm, signal)
          }
          forgetAt = performance.now() + oldPortsFor * 1000
        }
        await Promise.all(tools.map(remember))
      }),
    renew: () => {
      const now = performance.now()
      const forgets = now >= forgetAt
      if (!forgets && (now < renewAt || timeless.size === tools.length)) return Promise.resolve()
      if (forgets) forgetAt = Infinity
      return queue(() =>
        // Somebody may have asked for the end meanwhile; the chains it declares would come back.
        drained || loaded.size === 0
          ? Promise.resolve()
          : shiftAll({ ...wanted, ...leased(), ...(forgets ? { oldUdp: { connected: wanted.oldUdp?.connected ?? [], ports: [] } } : {}) }, { everyFew: !forgets }),
      )
    },
    drain: () =>
      queue(async () => {
        drained = true
        await each((tool) => restore(tool, texts(tool.family).drain))
        await each(remember)
      }),
    change: (next, before, signal) =>
      queue(async () => {
        const old = wanted.oldUdp ?? { connected: [], ports: [] }
        const whole = wanted
        if (before.settle > 0) await shiftAll({ ...wanted, ...leased(), ruleSet: withoutUdp(next) })
        await settled(before.settle, signal)
        const found = await before.listOldUdp()
        try {
          await shiftAll({ ruleSet: next, oldUdp: { connected: [...old.connected, ...found.connected], ports: [...new Set([...old.ports, ...found.ports])] }, ...leased() })
        } catch (error) {
          // The first step was a change of its own.
          if (before.settle === 0 || signal.aborted || error instanceof HalfChange) throw error
          return await goBack(error, () => shiftAll({ ...whole, ...leased() }))
        }
        if (found.ports.length > 0) forgetAt = performance.now() + oldPortsFor * 1000
      }),
    remove: () => {
      forgetAt = Infinity
      return queue(() =>
        each(async (tool) => {
          if (!loaded.has(tool.family)) return
          const saved = await save(tool)
          // What takes first, then what that needs.
          for (const table of tables().toReversed()) {
            const text = sweepIptables(saved, table)
            if (text !== '') await restore(tool, text)
            if (kind === 'nft') await restoreBase(tool.family, table, base[table][tool.family])
          }
          loaded.delete(tool.family)
        }),
      )
    },
    inspect: () => queue(async () => (await Promise.all(tools.map(lossOf))).flat()),
    repair: () =>
      queue(async () => {
        const found: string[] = []
        await each(async (tool) => {
          const lost = await lossOf(tool)
          if (lost.length === 0) return
          found.push(...lost)
          wanted = { ...wanted, ...leased() }
          const { load, drain } = texts(tool.family)
          await restore(tool, repairIptables(load, await save(tool)) + (drained ? drain : ''))
          await remember(tool)
        })
        return found
      }),
    onLoss: () => undefined,
  }
}
