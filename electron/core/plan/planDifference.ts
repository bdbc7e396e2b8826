import { formatPorts } from './formatPorts.ts'
import { nameLists, nameWords, networkLists } from './editPlan.ts'
import type { NameList, NetworkList } from './editPlan.ts'
import type { InterceptionPlan } from './plan.ts'
import type { PortRange } from './portRange.ts'
import { withoutPorts } from './portSets.ts'
import { transports } from './transport.ts'
import type { Transport } from './transport.ts'

/** What one plan takes that another does not. */
export interface PlanDifference {
  readonly ports: { readonly [Key in Transport]: { readonly added: readonly PortRange[]; readonly removed: readonly PortRange[] } }
  readonly networks: { readonly [Key in NetworkList]: { readonly added: readonly string[]; readonly removed: readonly string[] } }
  /** Ids as texts. `every`: nobody is chosen any more, and so every one is concerned. */
  readonly names: { readonly [Key in NameList]: { readonly added: readonly string[]; readonly removed: readonly string[]; readonly every: boolean } }
  /** Other choices that differ, by their names in the plan. */
  readonly others: readonly (keyof InterceptionPlan)[]
}

export function comparePlans(before: InterceptionPlan, after: InterceptionPlan): PlanDifference {
  const ports = (transport: Transport): PlanDifference['ports'][Transport] => ({
    added: withoutPorts(after[transport], before[transport]),
    removed: withoutPorts(before[transport], after[transport]),
  })
  const networks = (list: NetworkList): PlanDifference['networks'][NetworkList] => ({
    added: after[list].filter((each) => !before[list].includes(each)),
    removed: before[list].filter((each) => !after[list].includes(each)),
  })
  const names = (list: NameList): PlanDifference['names'][NameList] => {
    const [was, is] = [before[list].map(String), after[list].map(String)]
    return { added: is.filter((each) => !was.includes(each)), removed: was.filter((each) => !is.includes(each)), every: is.length === 0 && was.length > 0 }
  }
  const told: ReadonlySet<string> = new Set([...transports, ...networkLists, ...nameLists])
  return {
    ports: { tcp: ports('tcp'), udp: ports('udp') },
    networks: { exclude: networks('exclude'), excludeSources: networks('excludeSources'), servers: networks('servers'), sources: networks('sources') },
    names: { interfaces: names('interfaces'), users: names('users'), groups: names('groups'), cgroups: names('cgroups') },
    others: (Object.keys(after) as (keyof InterceptionPlan)[]).filter((key) => !told.has(key) && JSON.stringify(after[key]) !== JSON.stringify(before[key])),
  }
}

export function isSamePlan({ ports, networks, names, others }: PlanDifference): boolean {
  return others.length === 0 && [...Object.values(ports), ...Object.values(networks), ...Object.values(names)].every(({ added, removed }) => added.length + removed.length === 0)
}

const networkWords: Readonly<Record<NetworkList, { readonly added: string; readonly removed: string }>> = {
  exclude: { added: 'servers left alone as well', removed: 'servers no longer left alone' },
  excludeSources: { added: 'clients left alone as well', removed: 'clients no longer left alone' },
  servers: { added: 'servers included as well', removed: 'servers no longer included' },
  sources: { added: 'clients included as well', removed: 'clients no longer included' },
}

function describeNames(list: NameList, { added, removed, every }: PlanDifference['names'][NameList]): string[] {
  if (every) return [`every ${nameWords[list]} included`]
  return [...(added.length === 0 ? [] : [`${list} included as well: ${added.join(', ')}`]), ...(removed.length === 0 ? [] : [`${list} no longer included: ${removed.join(', ')}`])]
}

const otherWords: { readonly [Key in keyof InterceptionPlan]?: string } = {
  refuse: 'what of UDP is refused', udpIdle: 'how long UDP may be silent', hold: 'whether connections wait for their server', handOver: 'what is sent to a proxy',
  scope: 'whose traffic is taken',
}

/** Short parts of a sentence: "tcp 443 added", "tcp 80 removed", "servers left alone as well: 203.0.113.0/24"; none when nothing differs. */
export function describeDifference({ ports, networks, names, others }: PlanDifference): string[] {
  return [
    ...(['added', 'removed'] as const).flatMap((way) => transports.flatMap((transport) => (ports[transport][way].length === 0 ? [] : [`${transport} ${formatPorts(ports[transport][way])} ${way}`]))),
    ...networkLists.flatMap((list) => (['added', 'removed'] as const).flatMap((way) => (networks[list][way].length === 0 ? [] : [`${networkWords[list][way]}: ${networks[list][way].join(', ')}`]))),
    ...nameLists.flatMap((list) => describeNames(list, names[list])),
    ...others.map((name) => `${otherWords[name] ?? name} changed`),
  ]
}
