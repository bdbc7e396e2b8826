import * as v from 'valibot'

import { Failure } from '../contract/failure.ts'
import { parseHandOvers } from './handOver.ts'
import { mergePorts } from './mergePorts.ts'
import { mergeCidrs, parseCidr } from './parseCidr.ts'
import { parseCgroup, parseInterface } from './parseNames.ts'
import { defaultPriority, mostRanges, planShape, relayPortTries, scopes, type InterceptionPlan, type PortRange } from './plan.ts'

/**
 * Anything as a plan that is whole, meaningful and canonical: equal wishes have equal JSON, and parsing a plan again changes nothing. The helper runs this
 * on what it is told, as if nobody had checked before.
 * @throws Failure `bad-plan` for a wrong shape, else the code of what is wrong.
 */
export function parsePlan(input: unknown): InterceptionPlan {
  const shaped = v.safeParse(planShape, input)
  if (!shaped.success) {
    const issue = shaped.issues[0]
    throw new Failure('bad-plan', `The plan is malformed at ${v.getDotPath(issue) ?? 'its root'}`, issue.message)
  }
  const plan = shaped.output
  const handOver = parseHandOvers(plan.handOver)
  if (plan.tcp.length + plan.udp.length + plan.refuse.length + handOver.length === 0) throw new Failure('nothing-to-intercept', 'No port is chosen, so there is nothing to intercept')
  for (const { to } of handOver) {
    // The relay would be its own proxy.
    if (to.kind === 'tproxy' && to.port >= plan.relayPort && to.port <= plan.relayPort + 2 * relayPortTries + 2) throw new Failure('bad-plan', `Port ${to.port} is the relay’s own and cannot be a proxy’s`)
  }
  if (plan.backend.startsWith('iptables') && (plan.priority.prerouting !== defaultPriority.prerouting || plan.priority.output !== defaultPriority.output)) {
    throw new Failure('bad-plan', 'Where chains are entered can be chosen with nft alone: those of iptables stand where its mangle table does')
  }
  if (plan.keepPort && !plan.hold) throw new Failure('bad-plan', 'A device’s own port can be kept only where connections wait for their server')
  return {
    version: 1,
    // What is sent to a proxy must be taken first.
    tcp: bounded(canonicalPorts([...plan.tcp, ...handOver.flatMap(({ ports }) => ports)])),
    // What is refused must be taken first.
    udp: bounded(canonicalPorts([...plan.udp, ...plan.refuse])),
    refuse: canonicalPorts(plan.refuse),
    udpIdle: { dns: plan.udpIdle.dns, quic: plan.udpIdle.quic, other: plan.udpIdle.other },
    hold: plan.hold,
    keepPort: plan.keepPort,
    handOver,
    scope: scopes.filter((scope) => plan.scope.includes(scope)),
    interfaces: canonicalInterfaces(plan.interfaces.map(parseInterface)),
    sources: canonicalCidrs(plan.sources),
    excludeSources: canonicalCidrs(plan.excludeSources),
    servers: canonicalCidrs(plan.servers),
    users: canonicalIds(plan.users),
    groups: canonicalIds(plan.groups),
    cgroups: canonicalCgroups(plan.cgroups.map(parseCgroup)),
    exclude: canonicalCidrs(plan.exclude),
    backend: plan.backend,
    relayPort: plan.relayPort,
    marks: canonicalMarks(plan.marks),
    table: plan.table,
    priority: { prerouting: plan.priority.prerouting, output: plan.priority.output, rule: plan.priority.rule },
  }
}

function canonicalCidrs(networks: readonly string[]): string[] {
  return mergeCidrs(networks.map(parseCidr)).map((cidr) => cidr.text)
}

function canonicalIds(ids: readonly number[]): number[] {
  return [...new Set(ids)].sort((a, b) => a - b)
}

function canonicalPorts(ranges: readonly PortRange[]): PortRange[] {
  for (const { from, to } of ranges) if (from > to) throw new Failure('bad-ports', `"${from}-${to}" runs backwards: write ${to}-${from}`)
  return mergePorts(ranges)
}

function bounded(ranges: readonly PortRange[]): readonly PortRange[] {
  if (ranges.length > mostRanges) throw new Failure('bad-plan', `At most ${mostRanges} ranges of ports can be chosen, and these are ${ranges.length}`)
  return ranges
}

/** Sorted; what a wildcard covers is left out, since nft refuses a set with both. */
function canonicalInterfaces(names: readonly string[]): string[] {
  const wild = names.filter((name) => name.endsWith('*')).map((name) => name.slice(0, -1))
  const covered = (name: string): boolean => wild.some((beginning) => name !== `${beginning}*` && name.startsWith(beginning))
  return sorted(names.filter((name) => !covered(name)))
}

/** Sorted; a cgroup matches everything beneath it, so what lies in another one is left out. */
function canonicalCgroups(paths: readonly string[]): string[] {
  return sorted(paths.filter((path) => !paths.some((other) => path.startsWith(`${other}/`))))
}

function sorted(words: readonly string[]): string[] {
  return [...new Set(words)].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))
}

/** One bit each, all different: rules set and test them masked, so that the bits of others (Tailscale, Calico, Kubernetes) stay theirs. */
function canonicalMarks(marks: InterceptionPlan['marks']): InterceptionPlan['marks'] {
  const { forwarded, local, uplink } = marks
  for (const mark of [forwarded, local, uplink]) {
    if ((mark & (mark - 1)) !== 0) throw new Failure('bad-plan', `The mark 0x${mark.toString(16)} is not a single bit`)
  }
  if (new Set([forwarded, local, uplink]).size !== 3) throw new Failure('bad-plan', 'The three marks must differ')
  return { forwarded, local, uplink }
}
