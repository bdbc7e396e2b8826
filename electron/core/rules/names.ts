/**
 * Every name under which the kernel knows what is Sluice's, in one file: whoever takes rules back after a crash finds them by these alone.
 * Marks, table number, priorities and protocol have their defaults in plan.ts, since a person may have to move them out of a neighbour's way.
 */

export { defaultMarks, defaultPriority, defaultTable, routeProtocol } from '../plan/plan.ts'

/** nftables: one table of our own, family inet so that one rule serves IPv4 and IPv6. Removing it removes everything. */
export const nftTable = 'sluice'
export const nftFamily = 'inet'

/** iptables has shared tables, so ours are the chains that begin with this (names there are at most 28 characters). */
export const chainPrefix = 'SLUICE_'
/** In `mangle` alone may TPROXY be used, and only there does a changed mark re-route a local packet; in `nat` alone REDIRECT; in `raw` alone is a conntrack zone chosen in time. */
export const iptablesTables = ['raw', 'mangle', 'nat'] as const
export type IptablesTable = (typeof iptablesTables)[number]

/** Where rules redirect: before others' DNAT (-100; `dstnat` is no name for output), which decides for good where a flow goes, so that a cluster's service addresses are seen. */
export const redirectPriority = '-110'
/** Conntrack zone of the clients' side of flows whose upstream side has the same addresses and ports. A zone is a number by which conntrack tells equal ones apart. */
export const keptZone = 7701
/** Before conntrack. */
export const zonePriority = 'raw'

/** nfnetlink_log group to which SYNs go that wait for their server; one a network namespace. */
export const holdGroup = 7701
/** Of each: the longest IP and TCP headers are 120. */
export const heldBytes = 160

/** How each tool tells what came in by a bridge. `physdev` loads br_netfilter, which changes what bridges do: only where that is there already. */
export const fromBridge = { nft: 'meta iifkind "bridge"', iptables: '-m physdev --physdev-is-in' } as const

/** The relay listens on loopback and nowhere else: a transparent wildcard listener would take every connection through this machine to its port number. */
export const relayAddress = { ipv4: '127.0.0.1', ipv6: '::1' } as const

/**
 * Servers that are never reached through a relay: "this network" and IPv4's link-local addresses mean nothing without their interface; multicast, reserved and
 * broadcast are no TCP.
 */
export const neverTaken = { ipv4: ['0.0.0.0/8', '169.254.0.0/16', '224.0.0.0/3'], ipv6: ['ff00::/8'] } as const
/** A program names the interface with such an address of IPv6, so its flow can be taken (linkLocal.ts). Nobody's else. */
export const linkLocalNetwork = 'fe80::/10'
