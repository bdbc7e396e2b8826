import type { PortRange } from '../plan/plan.ts'
import { nftFamily, nftTable, outputPriority, preroutingPriority, relayAddress } from './names.ts'
import type { Act, Chain, Family, Match, RuleSet } from './ruleSet.ts'

export interface NftOptions {
  readonly relayPort: number
  /** The table belongs to the nft process that loads it and goes when that process goes (`flags owner`). */
  readonly owner: boolean
  /** How long one `arm` or `renew` lets new flows be taken. */
  readonly leaseSeconds: number
}

/**
 * Each text is one line, hence one transaction both for `nft -i` (which commits line by line) and for `nft -f -`, and ends with a newline.
 * `load` takes nothing yet: the rules that take ask for a lease, a set element that times out. `arm` and `renew` give it for `leaseSeconds`;
 * when nobody renews, the kernel forgets it and new flows go direct: no process has to be alive for that. `drain` empties the chains that take new
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
  const lease = oneLine([`flush set ${table} lease`, `add element ${table} lease { tcp timeout ${options.leaseSeconds}s }`])
  return {
    load: oneLine(loadCommands(ruleSet, options)),
    arm: lease,
    renew: lease,
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
    set('tcp_ports', 'inet_service', sets.tcp.map(span)),
    ...families(ruleSet).map((family) => set(skipSet(family), family === 'ipv4' ? 'ipv4_addr' : 'ipv6_addr', sets.skip[family])),
    ...(sets.interfaces.length === 0 ? [] : [set('interfaces', 'ifname', sets.interfaces.map((name) => `"${name}"`))]),
    ...(sets.users.length === 0 ? [] : [set('users', 'uid', sets.users.map(span))]),
    ...bare.map((chain) => `add chain ${table} ${chain.name}`),
    ...hooked.map((chain) => `add chain ${table} ${chain.name} { ${hook(chain)}; policy accept; }`),
    ...chains.flatMap((chain) => chainRules(ruleSet, chain, options.relayPort).map((rule) => `add rule ${table} ${chain.name} ${rule}`)),
  ]
}

function addTable(owner: boolean): string {
  return `add table ${table}${owner ? ' { flags owner; }' : ''}`
}

function chainRules(ruleSet: RuleSet, chain: Chain, relayPort: number): string[] {
  return chain.steps.flatMap(({ when, then }) => {
    // A match with several answers (an address family, a cgroup) makes a rule of each.
    const conditions = when.map((match) => conditionsOf(ruleSet, match)).reduce<string[][]>((left, right) => left.flatMap((a) => right.map((b) => [...a, b])), [[]])
    return conditions.flatMap((words) => verdicts(ruleSet, then, relayPort).map((verdict) => [...words, verdict].join(' ')))
  })
}

function conditionsOf(ruleSet: RuleSet, match: Match): string[] {
  switch (match.is) {
    case 'tcp-opening': return ['tcp flags & (fin | syn | rst | ack) == syn']
    case 'tcp-going-on': return ['tcp flags & (fin | syn | rst | ack) != syn']
    case 'tcp': return ['meta l4proto tcp']
    case 'icmp': return ['meta l4proto { icmp, icmpv6 }']
    // Never `socket wildcard 0` with it: that is not evaluated for half-open connections, whose last ACK would then be lost.
    case 'of-transparent-socket': return ['socket transparent 1']
    case 'from-loopback': return ['iifname "lo"']
    case 'from-chosen-interface': return [ruleSet.sets.interfaces.length === 0 ? 'iifname != "lo"' : 'iifname @interfaces']
    case 'original-direction': return ['ct direction original']
    case 'marked': return [`meta mark & ${hex(match.mark)} == ${hex(match.mark)}`]
    case 'flow-marked': return [`ct mark & ${hex(match.mark)} == ${hex(match.mark)}`]
    case 'to-elsewhere': return ['fib daddr type unicast']
    case 'to-skipped-network': return families(ruleSet).map((family) => `${family === 'ipv4' ? 'ip' : 'ip6'} daddr @${skipSet(family)}`)
    case 'to-chosen-port': return ['tcp dport @tcp_ports']
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
      const mark = act.mark === undefined ? '' : ` meta mark set meta mark | ${hex(act.mark)}`
      return families(ruleSet).map((family) =>
        family === 'ipv4'
          ? `meta nfproto ipv4 meta l4proto tcp tproxy ip to ${relayAddress.ipv4}:${relayPort}${mark} accept`
          : `meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [${relayAddress.ipv6}]:${relayPort}${mark} accept`,
      )
    }
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
