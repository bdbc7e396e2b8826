import type { PortRange } from '../plan/plan.ts'
import { heldBytes, nftFamily, nftTable, outputPriority, preroutingPriority, relayAddress } from './names.ts'
import { oldPortsFor, transportsOf, type Act, type Chain, type Family, type Match, type OldUdp, type RuleSet, type Transport } from './ruleSet.ts'

export interface NftOptions {
  readonly relayPort: number
  /** The table belongs to the nft process that loads it and goes when that process goes (`flags owner`). */
  readonly owner: boolean
  /** Somebody sends held SYNs again. Default: nobody does, so the rules hold none. */
  readonly holds?: boolean
  /** Default: none, or not known. */
  readonly oldUdp?: OldUdp
  /** How long one `arm` or `renew` lets new flows be taken. */
  readonly leaseSeconds: number
}

/**
 * Each text is one line, hence one transaction both for `nft -i` (which commits line by line) and for `nft -f -`, and ends with a newline.
 * `load` takes nothing yet: the rules that take ask for a lease, a set element that times out. `arm` and `renew` give it for `leaseSeconds`;
 * when nobody renews, the kernel forgets it and new flows go direct: no process has to be alive for that. `arm` also names the UDP sockets that
 * were there before. `drain` empties the chains that take new
 * flows and leaves the rest to the flows being relayed; a late `renew` after it changes nothing. `remove` never fails if the table is gone already.
 */
export interface NftTexts {
  readonly load: string
  readonly arm: string
  readonly renew: string
  readonly drain: string
  readonly remove: string
}

const table = `${nftFamily} ${nftTable}`

export function renderNft(ruleSet: RuleSet, options: NftOptions): NftTexts {
  // Adding an element that exists leaves its time as it was before kernel 6.12, hence flush and add, in one transaction.
  const lease = [`flush set ${table} lease`, `add element ${table} lease { ${transportsOf(ruleSet).map((transport) => `${transport} timeout ${options.leaseSeconds}s`).join(', ')} }`]
  return {
    load: oneLine(loadCommands(ruleSet, options)),
    arm: oneLine([...oldElements(ruleSet, options.oldUdp), ...lease]),
    renew: oneLine(lease),
    drain: oneLine([...ruleSet.chains.filter((chain) => chain.takes).map((chain) => `flush chain ${table} ${chain.name}`), `flush set ${table} lease`]),
    // Adding first makes deleting succeed even when the table is gone. The flags must be the same as it has, or the kernel refuses to add (EOPNOTSUPP).
    remove: oneLine([addTable(options.owner), `delete table ${table}`]),
  }
}

/** The commands of `load`, one each: the preview shows them under one another. */
export function loadCommands(ruleSet: RuleSet, options: NftOptions): string[] {
  const { sets, chains } = ruleSet
  const bare = chains.filter((chain) => chain.hook === undefined)
  const hooked = chains.filter((chain) => chain.hook !== undefined)
  return [
    addTable(options.owner),
    `add set ${table} lease { type inet_proto; flags timeout; }`,
    ...transportsOf(ruleSet).map((transport) => set(portSet(transport), 'inet_service', sets[transport].map(span))),
    ...families(ruleSet).map((family) => set(skipSet(family), addressType(family), sets.skip[family])),
    ...(sets.interfaces.length === 0 ? [] : [set('interfaces', 'ifname', sets.interfaces.map((name) => `"${name}"`))]),
    ...(sets.users.length === 0 ? [] : [set('users', 'uid', sets.users.map(span))]),
    ...(asksForOld(ruleSet)
      ? [
          ...families(ruleSet).map((family) => `add set ${table} ${oldSet(family)} { type ${addressType(family)} . inet_service . ${addressType(family)} . inet_service; }`),
          `add set ${table} old_udp_ports { type inet_service; flags timeout; }`,
        ]
      : []),
    ...bare.map((chain) => `add chain ${table} ${chain.name}`),
    ...hooked.map((chain) => `add chain ${table} ${chain.name} { ${hook(chain)}; policy accept; }`),
    ...chains.flatMap((chain) => chainRules(ruleSet, chain, options).map((rule) => `add rule ${table} ${chain.name} ${rule}`)),
  ]
}

function addTable(owner: boolean): string {
  return `add table ${table}${owner ? ' { flags owner; }' : ''}`
}

function chainRules(ruleSet: RuleSet, chain: Chain, options: NftOptions): string[] {
  return chain.steps.flatMap(({ when, then }) => {
    if (then.does === 'hold' && options.holds !== true) return []
    // A match with several answers (an address family, a cgroup) makes a rule of each.
    const conditions = when.map((match) => conditionsOf(ruleSet, match)).reduce<string[][]>((left, right) => left.flatMap((a) => right.map((b) => [...a, b])), [[]])
    return conditions.flatMap((words) => verdicts(ruleSet, then, options.relayPort).map((verdict) => [...words, verdict].join(' ')))
  })
}

function conditionsOf(ruleSet: RuleSet, match: Match): string[] {
  switch (match.is) {
    case 'tcp-opening': return ['tcp flags & (fin | syn | rst | ack) == syn']
    case 'tcp-going-on': return ['tcp flags & (fin | syn | rst | ack) != syn']
    case 'tcp': case 'udp': return [`meta l4proto ${match.is}`]
    case 'icmp': return ['meta l4proto { icmp, icmpv6 }']
    // Never `socket wildcard 0` with it: that is not evaluated for half-open connections, whose last ACK would then be lost.
    case 'of-transparent-socket': return ['socket transparent 1']
    case 'from-loopback': return ['iifname "lo"']
    case 'from-chosen-interface': return [ruleSet.sets.interfaces.length === 0 ? 'iifname != "lo"' : 'iifname @interfaces']
    case 'original-direction': return ['ct direction original']
    case 'marked': return [`meta mark & ${hex(match.mark)} == ${hex(match.mark)}`]
    case 'flow-marked': return [`ct mark & ${hex(match.mark)} == ${hex(match.mark)}`]
    case 'flow-not-marked': return [`ct mark & ${hex(match.mark)} != ${hex(match.mark)}`]
    case 'flow-new': return ['ct state new']
    case 'flow-established': return ['ct state established,related']
    case 'of-old-udp-socket': return [...families(ruleSet).map((family) => `${ip(family)} saddr . udp sport . ${ip(family)} daddr . udp dport @${oldSet(family)}`), 'udp sport @old_udp_ports']
    case 'not-translated': return ['ct status & dnat == 0']
    case 'to-elsewhere': return ['fib daddr type unicast']
    case 'to-skipped-network': return families(ruleSet).map((family) => `${ip(family)} daddr @${skipSet(family)}`)
    case 'to-broadcast': return ['fib daddr type broadcast']
    case 'to-chosen-port': return [`${match.transport} dport @${portSet(match.transport)}`]
    case 'by-chosen-user': return ['meta skuid @users']
    case 'in-chosen-cgroup': return ruleSet.sets.cgroups.map(({ path, level }) => `socket cgroupv2 level ${level} "${ruleSet.cgroupPrefix === '' ? '' : `${ruleSet.cgroupPrefix}/`}${path}"`)
    case 'leased': return ['meta l4proto @lease']
  }
}

function verdicts(ruleSet: RuleSet, act: Act, relayPort: number): string[] {
  switch (act.does) {
    case 'jump': return [`jump ${act.to}`]
    case 'mark': return [`meta mark set meta mark | ${hex(act.mark)}`]
    case 'mark-flow': return [`ct mark set ct mark | ${hex(act.mark)}`]
    case 'hand-to-relay': {
      const transports = transportsOf(ruleSet)
      const protocol = transports.length === 1 ? transports.join('') : `{ ${transports.join(', ')} }`
      const mark = act.mark === undefined ? '' : ` meta mark set meta mark | ${hex(act.mark)}`
      return families(ruleSet).map((family) =>
        family === 'ipv4'
          ? `meta nfproto ipv4 meta l4proto ${protocol} tproxy ip to ${relayAddress.ipv4}:${relayPort}${mark} accept`
          : `meta nfproto ipv6 meta l4proto ${protocol} tproxy ip6 to [${relayAddress.ipv6}]:${relayPort}${mark} accept`,
      )
    }
    case 'hold': return [`log group ${act.group} snaplen ${heldBytes} drop`]
    case 'refuse': return ['reject with tcp reset']
    case 'return': case 'accept': case 'drop': return [act.does]
  }
}

function hook({ hook: place }: Chain): string {
  return place === 'output' ? `type route hook output priority ${outputPriority}` : `type filter hook prerouting priority ${preroutingPriority}`
}

/** Never with auto-merge (nft 1.0.6 then cannot delete what it merged); elements are merged and apart already. */
function set(name: string, type: string, elements: readonly string[]): string {
  return `add set ${table} ${name} { type ${type}; flags interval; elements = { ${elements.join(', ')} }; }`
}

function families(ruleSet: RuleSet): readonly Family[] {
  return ruleSet.families
}

/** Elements of the sockets that were there before; `load` has made the sets. */
function oldElements(ruleSet: RuleSet, old: OldUdp | undefined): string[] {
  if (old === undefined || !asksForOld(ruleSet)) return []
  const connected = families(ruleSet).flatMap((family) => {
    const elements = old.connected.filter((flow) => flow.family === family).map(({ local, remote }) => `${local.address} . ${local.port} . ${remote.address} . ${remote.port}`)
    return elements.length === 0 ? [] : [`add element ${table} ${oldSet(family)} { ${elements.join(', ')} }`]
  })
  const ports = old.ports.map((port) => `${port} timeout ${oldPortsFor}s`)
  return [...connected, ...(ports.length === 0 ? [] : [`add element ${table} old_udp_ports { ${ports.join(', ')} }`])]
}

function asksForOld({ chains }: RuleSet): boolean {
  return chains.some((chain) => chain.steps.some((step) => step.when.some((match) => match.is === 'of-old-udp-socket')))
}

function oldSet(family: Family): string {
  return family === 'ipv4' ? 'old_udp4' : 'old_udp6'
}

function portSet(transport: Transport): string {
  return `${transport}_ports`
}

function addressType(family: Family): string {
  return family === 'ipv4' ? 'ipv4_addr' : 'ipv6_addr'
}

function ip(family: Family): string {
  return family === 'ipv4' ? 'ip' : 'ip6'
}

function skipSet(family: Family): string {
  return family === 'ipv4' ? 'skip4' : 'skip6'
}

function span({ from, to }: PortRange): string {
  return from === to ? String(from) : `${from}-${to}`
}

function hex(mark: number): string {
  return `0x${mark.toString(16).padStart(8, '0')}`
}

function oneLine(commands: readonly string[]): string {
  return `${commands.join('; ')}\n`
}
