import type { Backend } from '#core/plan/plan.ts'
import { makePlan, type PlanWish } from '#core/plan/makePlan.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import { renderIptables, sweepIptables, tablesOf } from '#core/rules/renderIptables.ts'
import { renderNft } from '#core/rules/renderNft.ts'
import { linkLocalRoute, renderRoutes } from '#core/rules/renderRoutes.ts'
import type { OldUdp } from '#core/rules/ruleSet.ts'
import { oldUdpIn } from '#probe/udpBefore.ts'
import { iptablesTools } from '#probe/tools.ts'
import type { Lab } from '#test/lab/makeLab.ts'

export interface AppliedRules {
  /** nft only; does nothing elsewhere. For so many seconds, else for as many as the rules were loaded for. */
  renew(seconds?: number): Promise<void>
  drain(): Promise<void>
  /** Rules and routes. Idempotent: iptables is swept by what is there. */
  remove(): Promise<void>
  /** Rules and routes by the text that belongs to what was loaded. */
  removeExactly(): Promise<void>
}

export interface ApplyOptions {
  readonly backend: Backend
  readonly relayPort: number
  readonly keptPort?: number | undefined
  readonly leaseSeconds?: number
  readonly cgroupPrefix?: string
  /** The relay sends held SYNs again. */
  readonly holds?: boolean
  /** This machine's kernel can only redirect (nat). */
  readonly redirects?: boolean
  /** Interfaces whose link-local flows are led to the relay. */
  readonly linkLocal?: readonly string[]
  /** Runs when everything is there but nothing is taken yet, as the helper waits for conntrack. */
  readonly beforeTaking?: () => Promise<void>
}

/** Compiles a wish and brings its rules into the laboratory's router by the real tools, in the helper's order: rules, routes, lease. */
export async function applyRules(lab: Lab, wish: PlanWish, { backend, relayPort, keptPort, leaseSeconds = 600, cgroupPrefix, holds = false, redirects = false, linkLocal = [], beforeTaking = () => Promise.resolve() }: ApplyOptions): Promise<AppliedRules> {
  const plan = makePlan({ ...wish, backend })
  const rules = compileRules(plan, { tools: redirects ? [{ backend, usable: true, redirectsBecause: 'no tproxy' }] : [], ipv6: true, lenientLo: true, interfaces: ['cl0', 'sv0', 'lo'], ...(cgroupPrefix === undefined ? {} : { cgroupPrefix }) })
  const { apply, revert } = renderRoutes(rules)
  const links = linkLocal.map((dev) => linkLocalRoute(rules.routing, dev))
  const routes = { apply: [...apply, ...links], revert: [...links.map((argv) => argv.map((word) => (word === 'append' ? 'del' : word))), ...revert] }
  const unroute = async (): Promise<void> => {
    for (const argv of routes.revert) await lab.exec('router', ['ip', ...argv], { reject: false })
  }
  const route = async (): Promise<void> => {
    for (const argv of routes.apply) await lab.exec('router', ['ip', ...argv])
  }
  const listOldUdp = async (): Promise<OldUdp> => oldUdpIn(await Promise.all(['udp', 'udp6'].map(async (name) => (await lab.exec('router', ['cat', `/proc/net/${name}`])).stdout)), plan)

  if (backend === 'nft') {
    const nft = async (text: string): Promise<void> => {
      await lab.exec('router', ['nft', '-f', '-'], { input: text })
    }
    const texts = renderNft(rules, { relayPort, keptPort, owner: false, holds, leaseSeconds })
    await nft(texts.load)
    await route()
    await beforeTaking()
    await nft(renderNft(rules, { relayPort, keptPort, owner: false, holds, leaseSeconds, oldUdp: await listOldUdp() }).arm)
    const remove = async (): Promise<void> => {
      await nft(texts.remove)
      await unroute()
    }
    return {
      renew: (seconds = leaseSeconds) => nft(renderNft(rules, { relayPort, keptPort, owner: false, holds, leaseSeconds: seconds }).renew),
      drain: () => nft(texts.drain),
      remove,
      removeExactly: remove,
    }
  }

  const tools = rules.families.map((family) => ({ ...iptablesTools(backend, family), family, texts: renderIptables(rules, { relayPort, keptPort, holds, family }) }))
  const restore = (tool: string, text: string): Promise<unknown> => lab.exec('router', [tool, '--noflush'], { input: text })
  await route()
  for (const tool of tools) await restore(tool.restore, tool.texts.loadIdle)
  await beforeTaking()
  const oldUdp = await listOldUdp()
  for (const tool of tools) await restore(tool.restore, renderIptables(rules, { relayPort, keptPort, holds, family: tool.family, oldUdp }).arm)
  return {
    renew: () => Promise.resolve(),
    async drain() {
      for (const tool of tools) await restore(tool.restore, tool.texts.drain)
    },
    async remove() {
      for (const tool of tools) {
        for (const table of tablesOf(rules).toReversed()) {
          const text = sweepIptables((await lab.exec('router', [tool.save, '-t', table])).stdout, table)
          if (text !== '') await restore(tool.restore, text)
        }
      }
      await unroute()
    },
    async removeExactly() {
      for (const tool of tools) await restore(tool.restore, tool.texts.remove)
      await unroute()
    },
  }
}

/** Does something while the lease runs long, then lets it be as short as it was: what has to be taken is taken however long it is until it comes, and whoever is stopped meanwhile. */
export async function whileRenewed<T>(rules: AppliedRules | undefined, work: () => Promise<T>): Promise<T> {
  await rules?.renew(600)
  const result = await work()
  await rules?.renew()
  return result
}

/** Everything of the router's rules and routes, as its tools list it; without packet counters and the time of day. */
export async function listRules(lab: Lab): Promise<string> {
  const commands = [
    ['nft', '--stateless', 'list', 'ruleset'],
    ...(['iptables', 'iptables-legacy'] as const).flatMap((backend) => (['ipv4', 'ipv6'] as const).map((family) => [iptablesTools(backend, family).save])),
    ...['-4', '-6'].flatMap((family) => [['ip', family, 'rule', 'show'], ['ip', family, 'route', 'show', 'table', 'all']]),
  ]
  const texts: string[] = []
  for (const argv of commands) texts.push(`## ${argv.join(' ')}\n${(await lab.exec('router', argv)).stdout}`)
  return texts.join('\n').replace(/^# (Generated|Completed).*\n/gm, '').replace(/\[[0-9]+:[0-9]+\]/g, '[0:0]')
}

/** iptables makes its built-in chains when it first loads anything, and never takes them away. */
export async function primeIptables(lab: Lab): Promise<void> {
  for (const backend of ['iptables', 'iptables-legacy'] as const) {
    for (const family of ['ipv4', 'ipv6'] as const) await lab.exec('router', [iptablesTools(backend, family).restore, '--noflush'], { input: ['mangle', 'nat', 'raw'].map((table) => `*${table}\n:PRIME - [0:0]\n-A PREROUTING -j PRIME\n-A OUTPUT -j PRIME\n-D PREROUTING -j PRIME\n-D OUTPUT -j PRIME\n-X PRIME\nCOMMIT\n`).join('') })
  }
}
