import { setTimeout } from 'node:timers/promises'

import { Failure } from '#core/contract/failure.ts'
import type { Backend } from '#core/plan/plan.ts'
import { iptablesTable, nftFamily, nftTable } from '#core/rules/names.ts'
import { renderIptables, sweepIptables } from '#core/rules/renderIptables.ts'
import type { IptablesTexts } from '#core/rules/renderIptables.ts'
import { renderNft } from '#core/rules/renderNft.ts'
import { oldPortsFor } from '#core/rules/ruleSet.ts'
import type { Family, OldUdp, RuleSet } from '#core/rules/ruleSet.ts'

import { startNftHolder } from './nftHolder.ts'
import type { NftHolder } from './nftHolder.ts'
import type { ProcessIdentity } from './processIdentity.ts'
import { requireTool, runTool } from './runTool.ts'
import { restoreMangle } from './takeBack.ts'
import type { Mangle } from './takeBack.ts'

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
  /** Everything of ours gone. */
  remove(): Promise<void>
  /** The rules went without being asked to. */
  onLoss(listener: () => void): void
}

/** Long enough for one missed renewal, short enough that a person does not reach for the plug. */
export const leaseSeconds = 4

/** For changes of one element or a few chains, milliseconds: who holds rules and takes longer is stuck. */
const smallWithin = 3000

export interface KeeperOptions {
  readonly relayPort: number
  /** nft tables may be owned by a process. */
  readonly owner: boolean
  /** What of iptables-nft's `mangle` stood there before us. */
  readonly mangle: { readonly ipv4: Mangle; readonly ipv6: Mangle }
  /** Milliseconds between loading rules and taking, in which conntrack (which runs only since then) learns what UDP is under way. */
  readonly settle: number
  /** Asked when about to take. */
  readonly listOldUdp: () => Promise<OldUdp>
}

export async function makeRuleKeeper(backend: Backend, ruleSet: RuleSet, options: KeeperOptions): Promise<RuleKeeper> {
  if (backend !== 'nft') return makeIptablesKeeper(backend, ruleSet, options)
  const nft = requireTool('nft')
  return makeNftKeeper(nft, ruleSet, options, options.owner ? await startNftHolder(nft) : undefined)
}

/** Without `flags owner` (kernel before 5.12) each change is a run of nft, and the guard takes the table back when the helper dies. */
function makeNftKeeper(nft: string, ruleSet: RuleSet, { relayPort, owner, settle, listOldUdp }: KeeperOptions, holder: NftHolder | undefined): RuleKeeper {
  const texts = renderNft(ruleSet, { relayPort, owner, leaseSeconds })
  const run = async (text: string, signal?: AbortSignal, within?: number): Promise<void> => {
    if (holder !== undefined) return holder.run(text, within)
    const result = await runTool(nft, ['-f', '-'], { input: text, ...(signal === undefined ? {} : { signal }) })
    if (result.exitCode !== 0) throw new Failure('rules-failed', 'nft refused the rules', result.stderr.slice(0, 4000))
  }
  return {
    holder: holder?.identity,
    load: async (signal) => {
      await run(texts.load, signal)
      await settled(settle, signal)
      await run(renderNft(ruleSet, { relayPort, owner, leaseSeconds, oldUdp: await listOldUdp() }).arm, signal)
    },
    renew: () => run(texts.renew, undefined, smallWithin),
    drain: () => run(texts.drain, undefined, smallWithin),
    remove: async () => {
      // Through its owner first: nft answers when the kernel has done it. Then the owner goes, which is enough by itself.
      if (holder === undefined) await run(texts.remove)
      else {
        await holder.run(`delete table ${nftFamily} ${nftTable}`, smallWithin).catch(() => undefined)
        await holder.end()
      }
    },
    onLoss: (listener) => holder?.onDeath(listener),
  }
}

async function settled(milliseconds: number, signal: AbortSignal): Promise<void> {
  if (milliseconds > 0) await setTimeout(milliseconds, undefined, { signal })
  signal.throwIfAborted()
}

interface RestoreTool {
  readonly family: Family
  readonly restore: string
  readonly save: string
}

function makeIptablesKeeper(backend: 'iptables' | 'iptables-legacy', ruleSet: RuleSet, { relayPort, mangle, settle, listOldUdp }: KeeperOptions): RuleKeeper {
  const kind = backend === 'iptables' ? 'nft' : 'legacy'
  const tools: RestoreTool[] = ruleSet.families.map((family) => {
    const name = `${family === 'ipv4' ? 'iptables' : 'ip6tables'}-${kind}`
    return { family, restore: requireTool(`${name}-restore`), save: requireTool(`${name}-save`) }
  })
  const restore = async (tool: RestoreTool, input: string, signal?: AbortSignal): Promise<void> => {
    const result = await runTool(tool.restore, ['--noflush', '-w', '5'], { input, ...(signal === undefined ? {} : { signal }) })
    if (result.exitCode !== 0) throw new Failure('rules-failed', `${tool.restore} refused the rules`, result.stderr.slice(0, 4000))
  }
  /** Each family is tried even where the other failed; the first failure is told at the end. */
  const each = async (work: (tool: RestoreTool) => Promise<void>): Promise<void> => {
    const failures: unknown[] = []
    for (const tool of tools) await work(tool).catch((error: unknown) => failures.push(error))
    if (failures.length > 0) throw failures[0]
  }
  const loaded = new Set<Family>()
  let texts = (family: Family): IptablesTexts => renderIptables(ruleSet, { relayPort, family })
  let forgetAt = Infinity
  let forgetting: Promise<void> = Promise.resolve()
  const forget = (): Promise<void> => each(async (tool) => {
    const text = texts(tool.family).forget
    if (text !== '') await restore(tool, text)
  })
  return {
    holder: undefined,
    load: async (signal) => {
      for (const tool of tools) {
        signal.throwIfAborted()
        loaded.add(tool.family)
        await restore(tool, ruleSet.sets.udp.length === 0 ? texts(tool.family).load : texts(tool.family).loadIdle, signal)
      }
      if (ruleSet.sets.udp.length === 0) return
      await settled(settle, signal)
      const oldUdp = await listOldUdp()
      texts = (family) => renderIptables(ruleSet, { relayPort, family, oldUdp })
      for (const tool of tools) {
        signal.throwIfAborted()
        await restore(tool, texts(tool.family).arm, signal)
      }
      forgetAt = performance.now() + oldPortsFor * 1000
    },
    renew: () => {
      if (performance.now() < forgetAt) return Promise.resolve()
      forgetAt = Infinity
      return (forgetting = forget())
    },
    drain: () => each((tool) => restore(tool, texts(tool.family).drain)),
    remove: async () => {
      forgetAt = Infinity
      // A forgetting under way would bring back the chains it declares.
      await forgetting.catch(() => undefined)
      await each(async (tool) => {
        if (!loaded.has(tool.family)) return
        const saved = await runTool(tool.save, ['-t', iptablesTable])
        const text = sweepIptables(saved.stdout)
        if (text !== '') await restore(tool, text)
        if (kind === 'nft') await restoreMangle(tool.family, mangle[tool.family])
        loaded.delete(tool.family)
      })
    },
    onLoss: () => undefined,
  }
}
