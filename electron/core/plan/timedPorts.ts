import { parsePlanEdit } from './editPlan.ts'
import type { PlanEdit } from './editPlan.ts'
import type { InterceptionPlan } from './plan.ts'
import type { PortRange } from './portRange.ts'
import { commonPorts, withoutPorts } from './portSets.ts'
import { transports } from './transport.ts'
import type { Transport } from './transport.ts'

/** Ports of an open gate that go by themselves. */
export interface TimedPorts {
  readonly transport: Transport
  readonly ports: readonly PortRange[]
  /** Milliseconds of whatever clock the caller has. */
  readonly until: number
}

/**
 * Which ports have an end once an edit is made to `before`. A port added with an end that was there without one stays without; added again with another
 * end it has that; added again without, it stays; removed, its end is forgotten.
 */
export function timePorts(timed: readonly TimedPorts[], before: InterceptionPlan, edit: PlanEdit, until: number | undefined): TimedPorts[] {
  const kept = timed.map((each) => ({ ...each, ports: withoutPorts(each.ports, [...edit[each.transport].remove, ...edit[each.transport].add]) }))
  const added = transports.map((transport) => {
    const ended = timed.flatMap((each) => (each.transport === transport ? each.ports : []))
    const endless = withoutPorts(withoutPorts(before[transport], ended), edit[transport].remove)
    return { transport, ports: until === undefined ? [] : withoutPorts(edit[transport].add, endless), until: until ?? 0 }
  })
  return ordered([...kept, ...added])
}

/** What of them the plan still has. */
export function timedWithin(timed: readonly TimedPorts[], plan: InterceptionPlan): TimedPorts[] {
  return ordered(timed.map((each) => ({ ...each, ports: commonPorts(each.ports, plan[each.transport]) })))
}

/** When the next of them goes. */
export function nextEnd(timed: readonly TimedPorts[]): number | undefined {
  return timed.length === 0 ? undefined : Math.min(...timed.map(({ until }) => until))
}

/** The ports whose time is up, as an edit that takes them away. */
export function overdue(timed: readonly TimedPorts[], now: number): PlanEdit {
  const due = (transport: Transport): PlanEdit[Transport] => ({ add: [], remove: timed.filter((each) => each.transport === transport && each.until <= now).flatMap(({ ports }) => ports) })
  return parsePlanEdit({ tcp: due('tcp'), udp: due('udp') })
}

function ordered(timed: readonly TimedPorts[]): TimedPorts[] {
  return timed.filter(({ ports }) => ports.length > 0).sort((a, b) => a.until - b.until || (a.transport < b.transport ? -1 : 1))
}
