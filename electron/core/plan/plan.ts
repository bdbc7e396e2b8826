import * as v from 'valibot'

import { handOverShape } from './handOver.ts'
import type { HandOver } from './handOver.ts'
import { portRange as range } from './portRange.ts'
import type { PortRange } from './portRange.ts'

export type { PortRange } from './portRange.ts'

/**
 * `local`: this computer's own programs (output). `forwarded`: devices, containers and VMs routed through it (prerouting). `incoming`: what they, or anybody else, say to services at
 * this computer's own addresses (prerouting, too).
 */
export const scopes = ['local', 'forwarded', 'incoming'] as const
export type Scope = (typeof scopes)[number]
export type BackendChoice = 'auto' | 'nft' | 'iptables' | 'iptables-legacy'
export type Backend = Exclude<BackendChoice, 'auto'>

export interface UdpIdle {
  readonly dns: number
  readonly quic: number
  readonly other: number
}

/**
 * What a person asked to intercept: plain data, complete (every default filled in), canonical (ranges sorted and merged, lists sorted and
 * without doubles), so that equal wishes have equal JSON. Made by `parsePlan` alone; the helper makes it again from what it is told.
 */
export interface InterceptionPlan {
  readonly version: 1
  readonly tcp: readonly PortRange[]
  readonly udp: readonly PortRange[]
  /** UDP ports whose datagrams are answered with "port unreachable" instead of being carried on, so that browsers fall back from QUIC to TCP. Always within `udp`. */
  readonly refuse: readonly PortRange[]
  /** Seconds of silence after which a UDP flow is over: to port 53, on ports that speak QUIC (443), on any other. */
  readonly udpIdle: UdpIdle
  /**
   * A TCP client's SYN waits until its server has answered, so that a closed port looks closed and a missing host missing. Without, every connection is
   * accepted first and reset when its server cannot be reached.
   */
  readonly hold: boolean
  /**
   * Servers see a device's own port as well as its address, where that port is free here. For connections that wait for their server alone (`hold`): only of these it is
   * known in time that they are taken.
   */
  readonly keepPort: boolean
  /** TCP ports whose flows go to a proxy a person already runs, recorded on the way. Always within `tcp`, each port once. */
  readonly handOver: readonly HandOver[]
  /** At least one, in the order local, forwarded, incoming. */
  readonly scope: readonly Scope[]
  /** Names of the interfaces by which `forwarded` and `incoming` come in; empty: every one but lo. */
  readonly interfaces: readonly string[]
  /** Canonical CIDRs of clients; empty: every one. For `forwarded` and `incoming` whose, for `local` which of this computer's own addresses. */
  readonly sources: readonly string[]
  /** Canonical CIDRs of clients that are left alone. */
  readonly excludeSources: readonly string[]
  /** Canonical CIDRs of servers; empty: every one. */
  readonly servers: readonly string[]
  /** User ids for `local`; empty: every user. */
  readonly users: readonly number[]
  /** Ids of the (effective) group programs run in, for `local`; empty: every one. */
  readonly groups: readonly number[]
  /** cgroup v2 paths below /sys/fs/cgroup, without leading slash, for `local`; empty: every one. */
  readonly cgroups: readonly string[]
  /** Canonical CIDRs of either family; a flow whose server address lies in one is left alone. */
  readonly exclude: readonly string[]
  readonly backend: BackendChoice
  /** First port the relay tries on loopback. */
  readonly relayPort: number
  readonly marks: { readonly forwarded: number; readonly local: number; readonly uplink: number }
  /** Routing table of ours, also the name our ip rules and routes are swept by (with protocol 77). */
  readonly table: number
  /** Where among others' chains ours are entered (nft alone; iptables' stand where the mangle table does), and where among ip rules ours are asked. */
  readonly priority: Priority
}
export interface Priority {
  readonly prerouting: number
  readonly output: number
  readonly rule: number
}

/** tproxy-notes 3.1: bits clear of Tailscale (18-19), Calico (16-31 low), Kubernetes (14-15); 0x80000000 is the relay's own upstream. */
export const defaultMarks = { forwarded: 0x0200_0000, local: 0x1000_0000, uplink: 0x8000_0000 } as const
export const defaultTable = 7701
/**
 * Prerouting: after DNAT (-100), so a published port shows its container, and after firewalld's reverse-path check (10), which kills marked packets. Output: mangle, where `type route`
 * chains do their work (re-routing by the new mark). Ip rules: 0, behind the kernel's own `local` rule; rules added without a preference land before the first non-zero one, so a VPN that
 * starts later would get ahead of any other number of ours.
 */
export const defaultPriority: Priority = { prerouting: 50, output: -150, rule: 0 }
/** After conntrack (-200), whose marks the rules ask. 32766 is main's. */
export const priorityLimits = { prerouting: { least: -199, most: 10_000 }, output: { least: -199, most: 10_000 }, rule: { least: 0, most: 32_765 } } as const
export const defaultRelayPort = 50080
/** Ports the relay tries after the first one, each for two listeners at most. */
export const relayPortTries = 20
/** A resolver answers within seconds or not at all; QUIC's own idle time-out is 30 s with most browsers, and NATs keep UDP for a minute at least. */
export const defaultUdpIdle: UdpIdle = { dns: 10, quic: 60, other: 60 }
/** Signature of our ip rules and routes (`protocol 77`). */
export const routeProtocol = 77

const port = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535))
const idle = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(86_400))
const mark = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(0xffff_ffff))

const ids = v.pipe(v.array(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_fffe))), v.maxLength(256))
const cidrs = v.pipe(v.array(v.pipe(v.string(), v.maxLength(64))), v.maxLength(4096))

const within = ({ least, most }: { readonly least: number; readonly most: number }) => v.pipe(v.number(), v.integer(), v.minValue(least), v.maxValue(most))

/** Of each list of them, also where several lists of a wish come together in one of the plan. */
export const mostRanges = 4096
const ranges = v.pipe(v.array(range), v.maxLength(mostRanges))

export const scopeShape = v.pipe(v.array(v.picklist(scopes)), v.minLength(1), v.maxLength(scopes.length))

/** Shape only, bounded; meaning (order, overlap, names, families) is `parsePlan`'s. */
export const planShape = v.strictObject({
  version: v.literal(1),
  tcp: ranges,
  udp: ranges,
  // Absent from the session files of 0.1.
  refuse: v.optional(ranges, []),
  handOver: v.optional(v.pipe(v.array(handOverShape), v.maxLength(64)), []),
  udpIdle: v.optional(v.strictObject({ dns: idle, quic: idle, other: idle }), defaultUdpIdle),
  hold: v.optional(v.boolean(), true),
  keepPort: v.optional(v.boolean(), false),
  scope: scopeShape,
  interfaces: v.pipe(v.array(v.pipe(v.string(), v.maxLength(15))), v.maxLength(64)),
  sources: v.optional(cidrs, []),
  excludeSources: v.optional(cidrs, []),
  servers: v.optional(cidrs, []),
  users: ids,
  groups: v.optional(ids, []),
  cgroups: v.pipe(v.array(v.pipe(v.string(), v.maxLength(1024))), v.maxLength(64)),
  exclude: cidrs,
  backend: v.picklist(['auto', 'nft', 'iptables', 'iptables-legacy']),
  relayPort: port,
  marks: v.strictObject({ forwarded: mark, local: mark, uplink: mark }),
  table: v.pipe(v.number(), v.integer(), v.minValue(256), v.maxValue(0x7fff_ffff)),
  priority: v.optional(v.strictObject({ prerouting: within(priorityLimits.prerouting), output: within(priorityLimits.output), rule: within(priorityLimits.rule) }), defaultPriority),
})
