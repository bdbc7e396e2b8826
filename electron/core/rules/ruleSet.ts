import type { PortRange, Scope } from '../plan/plan.ts'
import { transports } from '../plan/transport.ts'
import type { Transport } from '../plan/transport.ts'

export { transports }
export type { Transport }
export type Family = 'ipv4' | 'ipv6'

/** Short names; nft uses them as they are, iptables in capitals behind `SLUICE_`. */
export type ChainName = 'pre' | 'divert' | 'divert_udp' | 'fwd_sel' | 'in_sel' | 'fwd_src' | 'fwd_dst' | 'fwd_port' | 'fwd_on' | 'in_on' | 'take' | 'take_lo' | 'near_lo' | 'hand_lo' | 'out' | 'out_sel' | 'out_src' | 'out_dst' | 'out_user' | 'out_gid' | 'out_group' | 'out_port' | 'out_take' | 'zone_pre' | 'zone_up' | 'zone_out'

/** What a step asks of a packet; all of a step's matches must hold. */
export type Match =
  /** Opens a connection: of SYN, ACK, FIN and RST only SYN is set. */
  | { readonly is: 'tcp-opening' }
  | { readonly is: 'tcp-going-on' }
  | { readonly is: 'tcp' }
  | { readonly is: 'udp' }
  | { readonly is: 'icmp' }
  /** A transparent socket of this machine (the relay's) is who the packet is for. */
  | { readonly is: 'of-transparent-socket' }
  /** It bears that mark, too: the relay's connection to a server. On iptables the packet bears it from then on. */
  | { readonly is: 'of-marked-socket'; readonly mark: number }
  | { readonly is: 'from-loopback' }
  | { readonly is: 'from-chosen-interface' }
  /** It comes in by a bridge that shows the rules of IP what it carries (`RuleSet.bridgesCall`), before IP itself sees it: what it is handed to here is forgotten on the way. */
  | { readonly is: 'from-calling-bridge' }
  | { readonly is: 'original-direction' }
  | { readonly is: 'reply-direction' }
  | { readonly is: 'marked'; readonly mark: number }
  | { readonly is: 'flow-marked'; readonly mark: number }
  | { readonly is: 'flow-not-marked'; readonly mark: number }
  /** Conntrack has seen nothing come back yet: for UDP, which has no SYN, the nearest thing to an opening. */
  | { readonly is: 'flow-new' }
  /** Conntrack has seen both sides of it, or it belongs to such a flow (an ICMP error). */
  | { readonly is: 'flow-established' }
  /** Sent by a UDP socket that was there before the rules (`OldUdp`, known only when they are loaded). */
  | { readonly is: 'of-old-udp-socket' }
  /** Neither one of this machine's addresses nor broadcast nor multicast. */
  | { readonly is: 'to-elsewhere' }
  /** One of this machine's addresses. */
  | { readonly is: 'to-own' }
  /** No router passes it on: it has no hop left. Left out where the kernel cannot ask. */
  | { readonly is: 'at-last-hop' }
  | { readonly is: 'to-skipped-network' }
  | { readonly is: 'from-skipped-network' }
  /** IPv6 alone: its sender has a link-local address, which nobody else here can bear. */
  | { readonly is: 'from-link-local' }
  | { readonly is: 'from-chosen-network' }
  | { readonly is: 'to-chosen-network' }
  /** To every machine of a network this one is in. */
  | { readonly is: 'to-broadcast' }
  /** IPv6 alone: its server's address means something on one link. */
  | { readonly is: 'to-link-local' }
  | { readonly is: 'to-chosen-port'; readonly transport: Transport }
  | { readonly is: 'to-port'; readonly ports: readonly PortRange[] }
  /** Sent by somebody here in another machine's name: a transparent socket's. */
  | { readonly is: 'from-elsewhere' }
  | { readonly is: 'by-chosen-user' }
  | { readonly is: 'by-chosen-group' }
  | { readonly is: 'in-chosen-cgroup' }
  /** No DNAT has changed where it goes. */
  | { readonly is: 'not-translated' }
  /** The lease is alive: its holder has lately seen the relay answer. On iptables, which has no element that times out, a guard process does this instead. */
  | { readonly is: 'leased'; readonly transport: Transport }

export type Act =
  | { readonly does: 'jump'; readonly to: ChainName }
  | { readonly does: 'return' }
  | { readonly does: 'accept' }
  | { readonly does: 'mark'; readonly mark: number }
  | { readonly does: 'unmark'; readonly mark: number }
  | { readonly does: 'mark-flow'; readonly mark: number }
  | { readonly does: 'unmark-flow'; readonly mark: number }
  /**
   * To the relay's listener on loopback. Ends the walk if there is a listener; without one nft goes on to the next step and iptables drops. In a rule set that
   * redirects: by translating the destination to the relay's port on this machine; without a listener the kernel then refuses. `transport`: the one that the step itself asks for.
   */
  | { readonly does: 'hand-to-relay'; readonly mark?: number; readonly transport?: Transport }
  /** Likewise to the listener whose connections' clients are in a conntrack zone of their own. Left out where there is none. */
  | { readonly does: 'hand-to-kept' }
  /** Likewise to a proxy's own listener for connections as they are. */
  | { readonly does: 'hand-to-proxy'; readonly port: number }
  /** Conntrack sees it in that zone. Left out where no SYN is held. */
  | { readonly does: 'zone'; readonly zone: number }
  /** Dropped, and a copy given to the relay, which sends it again (both marks of `local` and `uplink` on it) when the server has answered. Left out where it cannot be done. */
  | { readonly does: 'hold'; readonly group: number }
  | { readonly does: 'refuse' }
  | { readonly does: 'drop' }

export interface Step {
  readonly when: readonly Match[]
  readonly then: Act
}

export interface Chain {
  readonly name: ChainName
  /** Where the kernel enters it; a chain without is reached by jumps. */
  readonly hook?: 'prerouting' | 'output'
  /** Entered before conntrack. */
  readonly early?: true
  /** Only packets of that family come here. */
  readonly family?: Family
  /** Its steps take new flows: draining empties exactly these. */
  readonly takes?: true
  readonly steps: readonly Step[]
}

/** An `ip rule`. Kept in the order to add; the last one added is asked last. */
export interface RoutingRule {
  readonly mark: number
  readonly incoming?: 'lo'
  readonly lookup: number | 'main'
}

export type CgroupIds = Readonly<Record<string, string>>

export type Networks = Readonly<Record<Family, readonly string[]>>

/** What rules before these may have brought to the relay, and these must go on carrying though they may take no more of it. */
export interface Carried {
  readonly local: boolean
  readonly transports: readonly Transport[]
  /** Some of it by way of a proxy in TPROXY mode. */
  readonly legs?: true
  /** Some of it for services of this machine. */
  readonly incoming?: true
  /** Whose SYNs may still wait for their server, and come back when it has answered. */
  readonly held?: readonly Scope[]
}

/**
 * What the kernel must do, as data without a syntax: two renderers make nft's and iptables' text of it. The backend is not in it, nor are the relay's port
 * and address: they are known only when the relay listens.
 */
export interface RuleSet {
  readonly version: 1
  /**
   * Absent: packets are handed over as they are (TPROXY). `redirect`: the kernel cannot, so the destination is translated (nat). Of each flow its first packet alone
   * passes these chains; conntrack does the rest, also when the rules are gone.
   */
  readonly way?: 'redirect'
  readonly families: readonly Family[]
  readonly scope: readonly Scope[]
  readonly marks: { readonly forwarded: number; readonly local: number; readonly uplink: number }
  /** Of the chains that packets enter; iptables has its own, and where rules redirect it is another. */
  readonly priority: { readonly prerouting: number; readonly output: number }
  readonly sets: {
    readonly tcp: readonly PortRange[]
    readonly udp: readonly PortRange[]
    /** Names, or beginnings ending in `*`. Empty: every interface but lo. */
    readonly interfaces: readonly string[]
    /** Inclusive ranges of user ids. */
    readonly users: readonly { readonly from: number; readonly to: number }[]
    readonly groups: readonly { readonly from: number; readonly to: number }[]
    /** Paths below the cgroup v2 root; `level` is the number of their segments. */
    readonly cgroups: readonly { readonly path: string; readonly level: number }[]
    readonly skip: Networks
    readonly skipSources: Networks
    /** Empty in both families: every client. A family without an entry when the other has one: none of that family. */
    readonly sources: Networks
    /** Likewise. */
    readonly servers: Networks
  }
  readonly chains: readonly Chain[]
  readonly routing: {
    readonly table: number
    readonly protocol: number
    readonly preference: number
    readonly rules: readonly RoutingRule[]
  }
  /** Where the cgroup v2 hierarchy is mounted below /sys/fs/cgroup (`unified` on a hybrid layout, else empty): nft resolves paths from there. */
  readonly cgroupPrefix: string
  /**
   * Only of rules that are applied: which cgroup bears a path of `sets.cgroups` now, by the number the kernel knows it by; a path without has none, and no rule. A rule names the
   * cgroup that bore its path when it was loaded: one made anew at the same place is another, and its rule has to be loaded anew.
   */
  readonly cgroupIds?: CgroupIds
  /** Only of rules that are applied: there may be such bridges (br_netfilter). */
  readonly bridgesCall?: true
  /** Only after a change while open. */
  readonly carried?: Carried
}

/**
 * UDP sockets that are there before the rules. What they have under way is left alone; conntrack may never have seen it. Canonical addresses of both
 * families. It differs from one look to the next, so it is no part of a RuleSet and of no digest.
 */
export interface OldUdp {
  /** Connected sockets: for as long as the rules stand, since no other socket is likely to meet the same four. */
  readonly connected: readonly { readonly family: Family; readonly local: { readonly address: string; readonly port: number }; readonly remote: { readonly address: string; readonly port: number } }[]
  /**
   * Local ports of sockets without a peer. For `oldPortsFor` seconds only: by then conntrack knows what goes to and fro, and such a socket (a resolver, a time
   * server) begins flows anew all the time, which are wanted.
   */
  readonly ports: readonly number[]
}

export const oldPortsFor = 30

/** Whether any SYN is to wait for its server. */
export function holdsSyns({ chains }: Pick<RuleSet, 'chains'>): boolean {
  return chains.some((chain) => chain.steps.some((step) => step.then.does === 'hold'))
}


/** Those of which new flows are taken. */
export function transportsOf({ sets }: Pick<RuleSet, 'sets'>): Transport[] {
  return transports.filter((transport) => sets[transport].length > 0)
}

/** Those of which flows may be relayed. */
export function carriedOf({ sets, carried }: Pick<RuleSet, 'sets' | 'carried'>): Transport[] {
  return transports.filter((transport) => sets[transport].length > 0 || carried?.transports.includes(transport))
}

/** Those of the chosen cgroups that are there, as far as that is known. */
export function cgroupsThere({ sets, cgroupIds }: Pick<RuleSet, 'sets' | 'cgroupIds'>): RuleSet['sets']['cgroups'] {
  return cgroupIds === undefined ? sets.cgroups : sets.cgroups.filter(({ path }) => Object.hasOwn(cgroupIds, path))
}

/** What of a chain's meaning is not in its text: equal texts may name other cgroups. */
export function cgroupsBehind({ steps }: Chain, { sets, cgroupIds }: Pick<RuleSet, 'sets' | 'cgroupIds'>): string {
  if (cgroupIds === undefined || !steps.some(({ when }) => when.some((match) => match.is === 'in-chosen-cgroup'))) return ''
  return sets.cgroups.map(({ path }) => cgroupIds[path] ?? '').join(' ')
}
