import { renderRoutes } from '#core/rules/renderRoutes.ts'
import type { Family, RoutingRule, RuleSet } from '#core/rules/ruleSet.ts'

import { Failure } from '#core/contract/failure.ts'
import { askTool, requireTool, runTool } from './runTool.ts'

type Routed = Pick<RuleSet, 'families' | 'routing'>

interface ListedRule {
  readonly fwmark?: string
  readonly fwmask?: string
  readonly iif?: string
  readonly table?: string
  readonly protocol?: string
  readonly priority?: number
}

const familyWord = { ipv4: 'IPv4', ipv6: 'IPv6' } as const
const flag = { ipv4: '-4', ipv6: '-6' } as const

/** Which of the ip rules and routes that a rule set asks for are gone, one line each; empty: all are there. */
export async function inspectRoutes(routed: Routed): Promise<string[]> {
  if (routed.routing.rules.length === 0) return []
  const lost = await Promise.all(
    routed.families.map(async (family) => {
      const [rules, route] = await Promise.all([missingRules(routed, family), hasRoute(routed, family)])
      return describeMissing(routed, family, rules, route)
    }),
  )
  return lost.flat()
}

/** Puts back what `inspectRoutes` misses. What comes after a missing rule is taken out and added again behind it, since rules of one preference are asked in the order added. Resolves to what it found missing, in the same words. */
export async function repairRoutes(routed: Routed): Promise<string[]> {
  if (routed.routing.rules.length === 0) return []
  const ip = requireTool('ip')
  const found: string[] = []
  for (const family of routed.families) {
    const { routing } = routed
    const missing = await missingRules(routed, family)
    const lines: string[] = []
    const { apply, revert } = renderRoutes({ families: [family], routing })
    const route = await hasRoute(routed, family)
    found.push(...describeMissing(routed, family, missing, route))
    if (!route) lines.push(...apply.filter((args) => args[1] === 'route').map(batchLine))
    const first = routing.rules.findIndex((rule) => missing.includes(rule))
    if (first >= 0) {
      const adds = apply.filter((args) => args[1] === 'rule')
      const dels = revert.filter((args) => args[1] === 'rule').toReversed()
      routing.rules.forEach((rule, index) => index > first && !missing.includes(rule) && lines.push(batchLine(dels[index] ?? [])))
      lines.push(...adds.slice(first).map(batchLine))
    }
    if (lines.length === 0) continue
    // One process, so that the gap is microseconds. -force: somebody else may be putting things back as well (EEXIST).
    const result = await runTool(ip, [flag[family], '-force', '-batch', '-'], { input: `${lines.join('\n')}\n` })
    const left = result.exitCode === 0 ? [] : await missingRules(routed, family)
    if (left.length > 0) throw new Failure('routes-failed', 'ip rules could not be put back', result.stderr.slice(0, 2000))
  }
  return found
}

function describeMissing({ routing }: Routed, family: Family, rules: readonly RoutingRule[], route: boolean): string[] {
  return [...rules.map((rule) => `ip rule ${describeRule(rule)} (${familyWord[family]})`), ...(route ? [] : [`the route of table ${String(routing.table)} (${familyWord[family]})`])]
}

/** The family's flag stands on the command line. */
function batchLine(args: readonly string[]): string {
  return args.slice(1).join(' ')
}

async function missingRules({ routing }: Routed, family: Family): Promise<RoutingRule[]> {
  const listed = await askTool(requireTool('ip'), ['-j', '-N', flag[family], 'rule', 'show'])
  if (listed.exitCode !== 0) throw new Failure('routes-failed', 'ip rules cannot be listed', listed.stderr.slice(0, 2000))
  const present = JSON.parse(listed.stdout || '[]') as readonly ListedRule[]
  return routing.rules.filter((rule) => !present.some((each) => isSame(each, rule, routing)))
}

function isSame(listed: ListedRule, { mark, incoming, lookup }: RoutingRule, { preference, protocol }: RuleSet['routing']): boolean {
  return (
    listed.priority === preference &&
    listed.protocol === String(protocol) &&
    Number(listed.fwmark) === mark &&
    Number(listed.fwmask ?? 0xffff_ffff) === mark &&
    listed.iif === incoming &&
    // 254 is main.
    listed.table === String(lookup === 'main' ? 254 : lookup)
  )
}

async function hasRoute({ routing }: Routed, family: Family): Promise<boolean> {
  const { exitCode, stdout } = await askTool(requireTool('ip'), ['-N', flag[family], 'route', 'show', 'table', String(routing.table), 'protocol', String(routing.protocol)])
  // A table that holds nothing does not exist: status 2 (IPv4).
  // -N writes the type as a number; whatever it is, it is ours by protocol and table.
  return exitCode === 0 && /^\S+ default dev lo/m.test(stdout)
}

function describeRule({ mark, incoming, lookup }: RoutingRule): string {
  return `fwmark 0x${mark.toString(16)}${incoming === undefined ? '' : ` iif ${incoming}`} lookup ${lookup}`
}
