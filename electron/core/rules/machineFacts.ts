import type { Backend } from '../plan/plan.ts'

/** One backend's tool. `usable` false comes with the reason. */
export interface ToolFacts {
  readonly backend: Backend
  readonly usable: boolean
  readonly path?: string
  readonly version?: string
  /** One line for a person: "iptables is not installed", "the kernel refuses tproxy rules: …". */
  readonly reason?: string
  /** nft only: tables may carry `flags owner` (kernel 5.12 and nft 0.9.9 or newer). */
  readonly owner?: boolean
  /**
   * The kernel cannot hand a packet to a listener as it is (no TPROXY, or no match for transparent sockets), and refuses in these words; but it translates addresses, so
   * TCP can be redirected. Absent: it can.
   */
  readonly redirectsBecause?: string
  /** Its rules can give a packet's copy to a program (nf_log over netlink); absent where that could not be tried. */
  readonly log?: boolean
}
/** Facts that decide what is compiled. Found by the probe room; plain data so that a test can state them. */
export interface MachineFacts {
  readonly tools: readonly ToolFacts[]
  /** The kernel has IPv6 (/proc/net/if_inet6 exists). */
  readonly ipv6: boolean
  readonly interfaces: readonly string[]
  /** A packet put on lo is let in though its sender lives elsewhere: no strict rp_filter there, no src_valid_mark. Absent: not known, so no. */
  readonly lenientLo?: boolean
  /** They became strict while the gate is open: nobody’s connection waits by lo any more, those that did go on. */
  readonly strictNow?: boolean
  /** Existing cgroup v2 paths, without leading slash; absent when they could not be listed. Rules do not depend on them, what is said of them does. */
  readonly cgroups?: readonly string[]
  /** Where the cgroup v2 hierarchy lies below /sys/fs/cgroup: `` or, on a hybrid layout, `unified`. */
  readonly cgroupPrefix?: string
}
