import type { InterceptionPlan } from '../plan/plan.ts'
import type { Chain, ChainName, Match, Step } from './ruleSet.ts'

/** What of a new flow decides whether it is taken: the same whichever way the kernel then brings it to the relay. */

/** What of two ends is left alone in any case. */
export function skips({ excludeSources }: InterceptionPlan): Step[] {
  return [
    { when: [{ is: 'to-skipped-network' }], then: { does: 'return' } },
    ...(excludeSources.length === 0 ? [] : [{ when: [{ is: 'from-skipped-network' }], then: { does: 'return' } } satisfies Step]),
  ]
}

/**
 * Who sends such a packet through this machine wants to hear where it ends (`traceroute -T`, `-U`): that it ended here, and not from a server it would not have come to. The kernel says so when it
 * is let pass. Of a local program's packets nobody here knows how far they would have come.
 */
export const lastHop: Step = { when: [{ is: 'at-last-hop' }], then: { does: 'return' } }

/** Towards a service here the relay bears its client's address. A link-local one binds it to its interface, and the way to an own address is lo. */
export const fromBesides: Step = { when: [{ is: 'from-link-local' }], then: { does: 'return' } }

/** Choices that narrow one another: each that was made is a gate of its own on the way to the ports. `first`: where that way begins. */
function narrow(ports: ChainName, choices: readonly { readonly name: ChainName; readonly by: Match; readonly chosen: readonly unknown[] }[]): Narrowing {
  const chains: Chain[] = []
  let first = ports
  for (const { name, by, chosen } of choices) {
    if (chosen.length === 0) continue
    chains.push({ name, steps: [{ when: [by], then: { does: 'jump', to: first } }] })
    first = name
  }
  return { first, chains }
}

interface Narrowing {
  readonly first: ChainName
  readonly chains: Chain[]
}

export function narrowForwarded({ servers, sources }: InterceptionPlan): Narrowing {
  return narrow('fwd_port', [
    { name: 'fwd_dst', by: { is: 'to-chosen-network' }, chosen: servers },
    { name: 'fwd_src', by: { is: 'from-chosen-network' }, chosen: sources },
  ])
}

export function narrowLocal({ cgroups, groups, users, servers, sources }: InterceptionPlan): Narrowing {
  return narrow('out_port', [
    { name: 'out_group', by: { is: 'in-chosen-cgroup' }, chosen: cgroups },
    { name: 'out_gid', by: { is: 'by-chosen-group' }, chosen: groups },
    { name: 'out_user', by: { is: 'by-chosen-user' }, chosen: users },
    { name: 'out_dst', by: { is: 'to-chosen-network' }, chosen: servers },
    { name: 'out_src', by: { is: 'from-chosen-network' }, chosen: sources },
  ])
}

/**
 * Of TCP only the first packet of a connection is ever taken: a rule for any packet would reset connections that were there before. UDP's nearest is what
 * conntrack has not seen answered; on the way here (`take`) that question has been put already, together with whether the flow is ours.
 */
export function chosenOpenings({ tcp, udp }: InterceptionPlan, to: ChainName): Step[] {
  const then: Step['then'] = { does: 'jump', to }
  const byUdp: readonly Match[] = [{ is: 'leased', transport: 'udp' }, { is: 'to-chosen-port', transport: 'udp' }]
  return [
    ...(tcp.length === 0 ? [] : [{ when: [{ is: 'tcp-opening' }, { is: 'leased', transport: 'tcp' }, { is: 'to-chosen-port', transport: 'tcp' }], then } satisfies Step]),
    ...(udp.length === 0 ? [] : [{ when: byUdp, then }]),
  ]
}

export function always(then: Step['then']): Step {
  return { when: [], then }
}
