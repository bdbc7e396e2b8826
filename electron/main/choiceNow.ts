import type { GateChoice, GateState } from '#core/contract/bridge.ts'
import { networkLists } from '#core/plan/editPlan.ts'
import { formatPorts } from '#core/plan/formatPorts.ts'
import { formatPortWords } from '#core/plan/formatPortWords.ts'
import { formatTarget } from '#core/plan/handOver.ts'
import { parsePortWords } from '#core/plan/parsePortWords.ts'
import { parsePlan } from '#core/plan/parsePlan.ts'
import type { InterceptionPlan } from '#core/plan/plan.ts'
import { withoutPorts } from '#core/plan/portSets.ts'
import type { TimedPorts } from '#core/plan/timedPorts.ts'
import { transports, type Transport } from '#core/plan/transport.ts'

/**
 * What the open gate does, as a choice: the one its plan was made from, and in the same words while nothing else has changed the gate (`sluice change`, a port whose
 * time was up). Ports that go by themselves are left out: they are nothing a person would choose again. @param typed the plan that was made from it
 */
export function choiceNow(choice: GateChoice, typed: InterceptionPlan, { plan, ends }: Pick<GateState, 'plan' | 'ends'>): GateChoice {
  if (plan === undefined) return choice
  const own = choice.ports.trim() === '' ? { tcp: [], udp: [] } : parsePortWords(choice.ports)
  const bound = { tcp: plan.handOver.flatMap(({ ports }) => ports), udp: plan.refuse }
  const lasting = (transport: Transport) => withoutPorts(plan[transport], (ends?.ports ?? []).filter((each) => each.transport === transport).flatMap(({ ports }) => ports))
  const changed: { -readonly [Key in keyof GateChoice]?: GateChoice[Key] } = {}
  if (transports.some((transport) => JSON.stringify(lasting(transport)) !== JSON.stringify(typed[transport]))) {
    // What is sent to a proxy or refused stands in a field of its own, unless it was named here as well.
    const named = (transport: Transport) => withoutPorts(lasting(transport), withoutPorts(bound[transport], own[transport]))
    changed.ports = formatPortWords({ tcp: named('tcp'), udp: named('udp') })
  }
  for (const list of networkLists) if (JSON.stringify(plan[list]) !== JSON.stringify(typed[list])) changed[list] = plan[list].join(', ')
  const differs = (key: keyof InterceptionPlan): boolean => JSON.stringify(plan[key]) !== JSON.stringify(typed[key])
  if (differs('refuse')) changed.refuse = formatPorts(plan.refuse)
  if (differs('udpIdle')) changed.udpIdle = { dns: String(plan.udpIdle.dns), quic: String(plan.udpIdle.quic), other: String(plan.udpIdle.other) }
  if (differs('scope')) changed.scope = { local: plan.scope.includes('local'), forwarded: plan.scope.includes('forwarded'), incoming: plan.scope.includes('incoming') }
  if (differs('interfaces')) changed.interfaces = plan.interfaces.join(', ')
  // By their numbers and paths: what name somebody meant is not known here.
  for (const list of ['users', 'groups'] as const) if (differs(list)) changed[list] = plan[list].join(', ')
  if (differs('cgroups')) changed.programs = plan.cgroups.map((path) => (path.includes('/') ? path : `/${path}`)).join(', ')
  if (differs('hold')) changed.hold = plan.hold
  if (differs('handOver')) {
    changed.send = plan.handOver.map((each) => {
      const [, kind = '', to = ''] = /^([^:]*):(.*)$/.exec(formatTarget(each.to)) ?? []
      return { ports: formatPorts(each.ports), kind: kind as GateChoice['send'][number]['kind'], to }
    })
  }
  return { ...choice, ...changed }
}

/** The plan with the ports that go by themselves. */
export function withTimed(plan: InterceptionPlan, timed: readonly TimedPorts[]): InterceptionPlan {
  const all = (transport: Transport) => [...plan[transport], ...timed.filter((each) => each.transport === transport).flatMap(({ ports }) => ports)]
  return parsePlan({ ...plan, tcp: all('tcp'), udp: all('udp') })
}
