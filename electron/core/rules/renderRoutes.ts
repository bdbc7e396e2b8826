import { linkLocalNetwork } from './names.ts'
import type { Family, RoutingRule, RuleSet } from './ruleSet.ts'

/** Argument lists for `ip`, to be run in order. */
export interface RouteCommands {
  readonly apply: readonly (readonly string[])[]
  /** Each is to be tried even when another failed; one that finds nothing to delete exits with 2. */
  readonly revert: readonly (readonly string[])[]
}

/**
 * Policy routing for each family: marked packets are delivered to this machine whatever their destination says. The route comes before the
 * rules, so that a rule never finds an empty table and falls through; taking back goes the other way. Deletion names a rule
 * in full (preference 0 is shared with the kernel's `local` rule, which must never be hit).
 */
export function renderRoutes(ruleSet: Pick<RuleSet, 'families' | 'routing'>): RouteCommands {
  const { table, protocol, preference, rules } = ruleSet.routing
  // What redirects needs no routing of its own.
  if (rules.length === 0) return { apply: [], revert: [] }
  const route = (verb: string, family: Family): string[] => [flag(family), 'route', verb, 'local', 'default', 'dev', 'lo', 'table', String(table), 'protocol', String(protocol)]
  const rule = (verb: string, family: Family, { mark, incoming, lookup }: RoutingRule): string[] => [
    flag(family), 'rule', verb, 'pref', String(preference), ...(incoming === undefined ? [] : ['iif', incoming]),
    'fwmark', `${hex(mark)}/${hex(mark)}`, 'lookup', String(lookup), 'protocol', String(protocol),
  ]
  return {
    apply: ruleSet.families.flatMap((family) => [route('replace', family), ...rules.map((each) => rule('add', family, each))]),
    revert: ruleSet.families.flatMap((family) => [...rules.toReversed().map((each) => rule('del', family, each)), route('del', family)]),
  }
}

/**
 * What a link-local flow needs besides: a route for each interface that has such an address. Names as the kernel has them, of which none begins an option. Appended, since
 * adding and replacing know one route for a destination and not one an interface; there already: EEXIST.
 */
export function linkLocalRoute({ table, protocol }: RuleSet['routing'], dev: string): string[] {
  return ['-6', 'route', 'append', 'local', linkLocalNetwork, 'dev', dev, 'table', String(table), 'protocol', String(protocol)]
}

function flag(family: Family): string {
  return family === 'ipv4' ? '-4' : '-6'
}

/** As `ip rule` prints it, so that both can be compared as text. */
function hex(mark: number): string {
  return `0x${mark.toString(16)}`
}
