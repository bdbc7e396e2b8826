import type { PortRange } from '../plan/plan.ts'
import { fromBridge, heldBytes, linkLocalNetwork, nftFamily, nftTable, redirectPriority, relayAddress, zonePriority } from './names.ts'
import { carriedOf, cgroupsBehind, cgroupsThere, oldPortsFor, transportsOf, type Act, type Chain, type Family, type Match, type OldUdp, type RuleSet, type Transport } from './ruleSet.ts'

export interface NftOptions {
  readonly relayPort: number
  /** The table belongs to the nft process that loads it and goes when that process goes (`flags owner`). */
  readonly owner: boolean
  /** Somebody sends held SYNs again. Default: nobody does, so the rules hold none. */
  readonly holds?: boolean
  /** Port of the listener for flows that keep their clients' ports. Default: there is none. */
  readonly keptPort?: number | undefined
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
  const { sets, chains } = nftContents(ruleSet, options)
  // Chains that are jumped to before those that jump, and all of them before their rules.
  const byHook = [...chains.filter((chain) => chain.hook === undefined), ...chains.filter((chain) => chain.hook !== undefined)]
  return [
    addTable(options.owner),
    `add set ${table} lease { type inet_proto; flags timeout; }`,
    ...sets.map(addSet),
    ...byHook.map(addChain),
    ...chains.flatMap(({ name, rules }) => rules.map((rule) => `add rule ${table} ${name} ${rule}`)),
  ]
}

interface NftSet {
  readonly name: string
  readonly spec: string
  /** Undefined: filled while the rules stand, not by them. */
  readonly elements?: readonly string[]
}
interface NftChain {
  readonly name: string
  readonly hook: string | undefined
  readonly rules: readonly string[]
  readonly cgroups: string
}

export type NftContentOptions = Pick<NftOptions, 'relayPort' | 'keptPort' | 'holds'>

/** What is in the table besides the lease. */
function nftContents(ruleSet: RuleSet, options: NftContentOptions): { readonly sets: readonly NftSet[]; readonly chains: readonly NftChain[] } {
  const { sets, chains } = ruleSet
  // Never with auto-merge (nft 1.0.6 then cannot delete what it merged); elements are merged and apart already.
  const interval = (name: string, type: string, elements: readonly string[]): NftSet => ({ name, spec: `type ${type}; flags interval;`, elements })
  return {
    sets: [
      ...transportsOf(ruleSet).map((transport) => interval(portSet(transport), 'inet_service', sets[transport].map(span))),
      ...networkSets.flatMap((choice) => familiesWith(ruleSet, choice).map((family) => interval(networkSet(choice, family), addressType(family), sets[choice][family]))),
      ...(sets.interfaces.length === 0 ? [] : [interval('interfaces', 'ifname', sets.interfaces.map((name) => `"${name}"`))]),
      ...(sets.users.length === 0 ? [] : [interval('users', 'uid', sets.users.map(span))]),
      ...(sets.groups.length === 0 ? [] : [interval('groups', 'gid', sets.groups.map(span))]),
      ...(asksForOld(ruleSet)
        ? [
            ...families(ruleSet).map((family) => ({ name: oldSet(family), spec: `type ${addressType(family)} . inet_service . ${addressType(family)} . inet_service;` })),
            { name: 'old_udp_ports', spec: 'type inet_service; flags timeout;' },
          ]
        : []),
    ],
    chains: chains.map((chain) => ({
      name: chain.name,
      hook: chain.hook === undefined ? undefined : `${hook(ruleSet, chain)}; policy accept;`,
      rules: chainRules(chain.family === undefined ? ruleSet : { ...ruleSet, families: [chain.family] }, chain, options),
      cgroups: cgroupsBehind(chain, ruleSet),
    })),
  }
}

/**
 * One transaction from one rule set to another, naming only what differs: sets are emptied and filled anew (nft 1.0.6 cannot take a number out of a range),
 * chains whose rules differ likewise, and what the other does not have goes. The lease and every chain that is alike are not touched, so nothing is cut and no
 * flow slips by. Empty: nothing differs.
 */
export function renderNftChange(before: RuleSet, after: RuleSet, options: NftContentOptions): string {
  const [old, next] = [nftContents(before, options), nftContents(after, options)]
  const named = <Item extends { readonly name: string }>(items: readonly Item[], name: string): Item | undefined => items.find((item) => item.name === name)
  const differs = (a: readonly string[] | undefined, b: readonly string[]): boolean => a?.join('\n') !== b.join('\n')
  const isNew = (chain: NftChain): boolean => named(old.chains, chain.name) === undefined
  const rewritten = next.chains.filter((chain) => {
    const before = named(old.chains, chain.name)
    return differs(before?.rules, chain.rules) || before?.cgroups !== chain.cgroups
  })
  const goneChains = old.chains.filter(({ name }) => named(next.chains, name) === undefined)
  const goneSets = old.sets.filter(({ name }) => named(next.sets, name) === undefined)
  const refilled = next.sets.flatMap(({ name, elements }) => (elements !== undefined && named(old.sets, name) !== undefined && differs(named(old.sets, name)?.elements, elements) ? [{ name, elements }] : []))
  const commands = [
    ...next.sets.filter(({ name }) => named(old.sets, name) === undefined).map(addSet),
    ...next.chains.filter((chain) => isNew(chain) && chain.hook === undefined).map(addChain),
    ...[...rewritten.filter((chain) => !isNew(chain)), ...goneChains].map(({ name }) => `flush chain ${table} ${name}`),
    ...refilled.flatMap(({ name, elements }) => [`flush set ${table} ${name}`, `add element ${table} ${name} { ${elements.join(', ')} }`]),
    ...next.chains.filter((chain) => isNew(chain) && chain.hook !== undefined).map(addChain),
    ...rewritten.flatMap(({ name, rules }) => rules.map((rule) => `add rule ${table} ${name} ${rule}`)),
    ...goneChains.map(({ name }) => `delete chain ${table} ${name}`),
    ...goneSets.map(({ name }) => `delete set ${table} ${name}`),
  ]
  return commands.length === 0 ? '' : oneLine(commands)
}

function addTable(owner: boolean): string {
  return `add table ${table}${owner ? ' { flags owner; }' : ''}`
}

function chainRules(ruleSet: RuleSet, chain: Chain, options: NftContentOptions): string[] {
  return chain.steps.flatMap(({ when, then }) => {
    if ((then.does === 'hold' || then.does === 'zone') && options.holds !== true) return []
    // A match with several answers (an address family, a cgroup) makes a rule of each.
    const conditions = when.map((match) => conditionsOf(ruleSet, match)).reduce<string[][]>((left, right) => left.flatMap((a) => right.map((b) => [...a, b])), [[]])
    return conditions.flatMap((words) => verdicts(ruleSet, then, options).map((verdict) => [...words, verdict].join(' ')))
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
    case 'of-marked-socket': return [`socket transparent 1 socket mark & ${hex(match.mark)} == ${hex(match.mark)}`]
    case 'from-loopback': return ['iifname "lo"']
    case 'from-chosen-interface': return [ruleSet.sets.interfaces.length === 0 ? 'iifname != "lo"' : 'iifname @interfaces']
    case 'from-calling-bridge': return ruleSet.bridgesCall === true ? [fromBridge.nft] : []
    case 'original-direction': return ['ct direction original']
    case 'reply-direction': return ['ct direction reply']
    case 'marked': return [`meta mark & ${hex(match.mark)} == ${hex(match.mark)}`]
    case 'flow-marked': return [`ct mark & ${hex(match.mark)} == ${hex(match.mark)}`]
    case 'flow-not-marked': return [`ct mark & ${hex(match.mark)} != ${hex(match.mark)}`]
    case 'flow-new': return ['ct state new']
    case 'flow-established': return ['ct state established,related']
    case 'of-old-udp-socket': return [...families(ruleSet).map((family) => `${ip(family)} saddr . udp sport . ${ip(family)} daddr . udp dport @${oldSet(family)}`), 'udp sport @old_udp_ports']
    case 'not-translated': return ['ct status & dnat == 0']
    case 'to-elsewhere': return ['fib daddr type unicast']
    case 'to-own': return ['fib daddr type local']
    case 'at-last-hop': return families(ruleSet).map((family) => (family === 'ipv4' ? 'ip ttl < 2' : 'ip6 hoplimit < 2'))
    case 'to-skipped-network': return inNetworks(ruleSet, 'skip', 'daddr')
    case 'from-skipped-network': return inNetworks(ruleSet, 'skipSources', 'saddr')
    case 'from-chosen-network': return inNetworks(ruleSet, 'sources', 'saddr')
    case 'to-chosen-network': return inNetworks(ruleSet, 'servers', 'daddr')
    case 'to-broadcast': return ['fib daddr type broadcast']
    case 'to-link-local': case 'from-link-local': return families(ruleSet).includes('ipv6') ? [`ip6 ${match.is === 'to-link-local' ? 'daddr' : 'saddr'} ${linkLocalNetwork}`] : []
    case 'to-chosen-port': return [`${match.transport} dport @${portSet(match.transport)}`]
    case 'to-port': return [`tcp dport { ${match.ports.map(span).join(', ')} }`]
    case 'from-elsewhere': return ['fib saddr type != local']
    case 'by-chosen-user': return ['meta skuid @users']
    case 'by-chosen-group': return ['meta skgid @groups']
    case 'in-chosen-cgroup': return cgroupsThere(ruleSet).map(({ path, level }) => `socket cgroupv2 level ${level} "${ruleSet.cgroupPrefix === '' ? '' : `${ruleSet.cgroupPrefix}/`}${path}"`)
    case 'leased': return ['meta l4proto @lease']
  }
}

function verdicts(ruleSet: RuleSet, act: Act, { relayPort, keptPort }: NftContentOptions): string[] {
  switch (act.does) {
    case 'jump': return [`jump ${act.to}`]
    case 'mark': return [`meta mark set meta mark | ${hex(act.mark)}`]
    case 'unmark': return [`meta mark set meta mark & ${hex(~act.mark >>> 0)}`]
    case 'zone': return [`ct zone set ${act.zone}`]
    case 'mark-flow': return [`ct mark set ct mark | ${hex(act.mark)}`]
    case 'unmark-flow': return [`ct mark set ct mark & ${hex(~act.mark >>> 0)}`]
    case 'hand-to-relay': {
      const transports = act.transport === undefined ? carriedOf(ruleSet) : [act.transport]
      const protocol = transports.length === 1 ? transports.join('') : `{ ${transports.join(', ')} }`
      const mark = act.mark === undefined ? '' : ` meta mark set meta mark | ${hex(act.mark)}`
      if (ruleSet.way === 'redirect') return families(ruleSet).map((family) => `meta nfproto ${family} meta l4proto ${protocol}${mark} redirect to :${relayPort}`)
      return families(ruleSet).map((family) => handTo(family, protocol, relayPort, mark))
    }
    case 'hand-to-kept': return keptPort === undefined ? [] : families(ruleSet).map((family) => handTo(family, 'tcp', keptPort, ''))
    case 'hand-to-proxy': return families(ruleSet).map((family) => handTo(family, 'tcp', act.port, ''))
    case 'hold': return [`log group ${act.group} snaplen ${heldBytes} drop`]
    case 'refuse': return ['reject with tcp reset']
    case 'return': case 'accept': case 'drop': return [act.does]
  }
}

function handTo(family: Family, protocol: string, port: number, mark: string): string {
  return family === 'ipv4'
    ? `meta nfproto ipv4 meta l4proto ${protocol} tproxy ip to ${relayAddress.ipv4}:${port}${mark} accept`
    : `meta nfproto ipv6 meta l4proto ${protocol} tproxy ip6 to [${relayAddress.ipv6}]:${port}${mark} accept`
}

function hook({ way, priority }: RuleSet, { hook: place, early }: Chain): string {
  if (early) return `type filter hook ${place ?? ''} priority ${zonePriority}`
  if (way === 'redirect') return `type nat hook ${place ?? ''} priority ${redirectPriority}`
  return place === 'output' ? `type route hook output priority ${priority.output === -150 ? 'mangle' : String(priority.output)}` : `type filter hook prerouting priority ${priority.prerouting === 50 ? 'filter + 50' : String(priority.prerouting)}`
}

function addSet({ name, spec, elements }: NftSet): string {
  return `add set ${table} ${name} { ${spec}${elements === undefined ? '' : ` elements = { ${elements.join(', ')} };`} }`
}

function addChain({ name, hook: place }: NftChain): string {
  return `add chain ${table} ${name}${place === undefined ? '' : ` { ${place} }`}`
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

type NetworkChoice = keyof typeof networkNames
const networkNames = { skip: 'skip', skipSources: 'skip_src', sources: 'src', servers: 'dst' } as const
const networkSets = Object.keys(networkNames) as NetworkChoice[]

/** No set without elements, so no rule of that family either: it would match nothing. */
function familiesWith(ruleSet: RuleSet, choice: NetworkChoice): Family[] {
  return families(ruleSet).filter((family) => ruleSet.sets[choice][family].length > 0)
}

function networkSet(choice: NetworkChoice, family: Family): string {
  return `${networkNames[choice]}${family === 'ipv4' ? '4' : '6'}`
}

function inNetworks(ruleSet: RuleSet, choice: NetworkChoice, end: 'saddr' | 'daddr'): string[] {
  return familiesWith(ruleSet, choice).map((family) => `${ip(family)} ${end} @${networkSet(choice, family)}`)
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
