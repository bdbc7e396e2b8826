import { chainPrefix, fromBridge, heldBytes, iptablesTables, linkLocalNetwork, relayAddress, type IptablesTable } from './names.ts'
import { carriedOf, cgroupsBehind, cgroupsThere, type Act, type Chain, type ChainName, type Family, type Match, type OldUdp, type RuleSet, type Step } from './ruleSet.ts'
import { addNetworks, addPorts, addQuestion, isLong, leafNetworks, portLists, type TreeChain } from './treeIptables.ts'

export interface IptablesOptions {
  readonly relayPort: number
  readonly family: Family
  /** Somebody sends held SYNs again. Default: nobody does, so the rules hold none. */
  readonly holds?: boolean
  /** Port of the listener for flows that keep their clients' ports. Default: there is none. */
  readonly keptPort?: number | undefined
  /** Default: none, or not known. */
  readonly oldUdp?: OldUdp
  /** Seconds since 1970 after which nothing is taken any more (xt_time). Default: no end. */
  readonly until?: number
  /** The kernel cannot ask for the hops a packet has left (xt_hl). */
  readonly hopless?: boolean
}

/**
 * Texts for `iptables-restore --noflush` (`ip6tables-restore` for IPv6), each one transaction a table. TPROXY drops what it takes when nobody
 * listens, so a guard process must restore `disarm` (the same as `drain`) as soon as the relay does not answer, and `load` takes at once. Where even the guard is killed, `until`
 * is the end of it: a time of the wall clock, as sets with timeouts are a tool of their own here.
 * `remove` takes back exactly one `load` and fails as a whole if something of it is gone; `sweepIptables` takes back whatever there is.
 * What stays is what iptables itself makes when it first loads anything: the table's empty built-in chains.
 */
export interface IptablesTexts {
  readonly load: string
  /** `load` in two, for who lets conntrack look round first: without the rules that take; then those, and what the old sockets need, in one transaction. */
  readonly loadIdle: string
  readonly arm: string
  readonly drain: string
  readonly disarm: string
  readonly remove: string
}

/** Where the rules stand. */
export function tablesOf(ruleSet: RuleSet): IptablesTable[] {
  return iptablesTables.filter((table) => chainsIn(ruleSet, table).length > 0)
}

function chainsIn({ way, chains }: RuleSet, table: IptablesTable, of?: Family): Chain[] {
  return chains.filter(({ early, family }) => (of === undefined || family === undefined || family === of) && (early === true ? 'raw' : way === 'redirect' ? 'nat' : 'mangle') === table)
}

const hookChain = { prerouting: 'PREROUTING', output: 'OUTPUT' } as const

export function renderIptables(ruleSet: RuleSet, options: IptablesOptions): IptablesTexts {
  const rulesOf = (some: readonly RenderedChain[]): string[] => some.flatMap(linesOf)
  const declaring = (some: readonly RenderedChain[]): string[] => some.map(({ name }) => declare(name))
  const taking = (chains: readonly RenderedChain[]): RenderedChain[] => chains.filter((chain) => chain.takes)
  const asking = (chains: readonly RenderedChain[]): RenderedChain[] => chains.filter((chain) => chain.asksForOld)
  const adding = (chains: readonly RenderedChain[]): string[] => jumpsTo(chains).map((jump) => `-A ${jump}`)
  const rendered = tablesOf(ruleSet).map((table) => ({ table, chains: chainsIn(ruleSet, table, options.family).flatMap((chain) => renderChain(ruleSet, chain, options)) }))
  const text = (lines: (chains: readonly RenderedChain[]) => string[]): string => rendered.map(({ table, chains }) => restoreText(table, lines(chains))).join('')
  // Declaring a chain that exists empties it, atomically.
  const drain = text((chains) => declaring(taking(chains)))
  return {
    load: text((chains) => [...declaring(chains), ...rulesOf(chains), ...adding(chains)]),
    loadIdle: text((chains) => [...declaring(chains), ...rulesOf(chains.filter((chain) => !chain.takes)), ...adding(chains)]),
    arm: text((chains) => [...declaring([...taking(chains), ...asking(chains)]), ...rulesOf([...taking(chains), ...asking(chains)])]),
    drain,
    disarm: drain,
    remove: text((chains) => [...declaring(chains), ...jumpsTo(chains).map((jump) => `-D ${jump}`), ...chains.map(({ name }) => `-X ${name}`)]),
  }
}

export interface IptablesState {
  readonly ruleSet: RuleSet
  readonly oldUdp?: OldUdp
  readonly until?: number
  readonly hopless?: boolean
}

/**
 * One transaction (one a table) of a family from one state to another: only chains that differ are declared anew (which empties them) and filled, those the other
 * does not have go, with their jumps. Empty: nothing differs.
 */
export function renderIptablesChange(before: IptablesState, after: IptablesState, options: Omit<IptablesOptions, 'oldUdp' | 'until' | 'hopless'>): string {
  // Every few seconds it is the lease alone, and thousands of networks are not worth looking at.
  const sameRules = before.ruleSet === after.ruleSet && before.hopless === after.hopless
  const mayDiffer = (chain: Chain): boolean => !sameRules || chain.takes === true || chain.steps.some(({ when }) => when.some((match) => match.is === 'of-old-udp-socket'))
  const chainsOf = ({ ruleSet, ...state }: IptablesState, table: IptablesTable): RenderedChain[] => chainsIn(ruleSet, table, options.family).filter(mayDiffer).flatMap((chain) => renderChain(ruleSet, chain, { ...options, ...state }))
  const rulesIn = (chains: readonly RenderedChain[]): Map<string, string[]> => new Map(chains.map((chain) => [chain.name, linesOf(chain)]))
  const cgroupsOf = (chains: readonly RenderedChain[], name: string): string | undefined => chains.find((chain) => chain.name === name)?.cgroups
  return iptablesTables
    .map((table) => {
      const [oldChains, nextChains] = [chainsOf(before, table), chainsOf(after, table)]
      const [old, next] = [rulesIn(oldChains), rulesIn(nextChains)]
      const [oldJumps, nextJumps] = [jumpsTo(oldChains), jumpsTo(nextChains)]
      const rewritten = [...next].filter(([name, rules]) => old.get(name)?.join('\n') !== rules.join('\n') || cgroupsOf(oldChains, name) !== cgroupsOf(nextChains, name))
      const gone = [...old.keys()].filter((name) => !next.has(name))
      return restoreText(table, [
        ...[...rewritten.map(([name]) => name), ...gone].map(declare),
        ...rewritten.flatMap(([, rules]) => rules),
        ...oldJumps.filter((jump) => !nextJumps.includes(jump)).map((jump) => `-D ${jump}`),
        ...nextJumps.filter((jump) => !oldJumps.includes(jump)).map((jump) => `-A ${jump}`),
        ...gone.map((name) => `-X ${name}`),
      ])
    })
    .join('')
}

/**
 * From what `iptables-save -t TABLE` printed, the text that takes back everything of ours there: each jump as often as it occurs, by its exact text, then
 * the chains. Empty when there is nothing of ours. Idempotent, and independent of the plan that made it.
 */
export function sweepIptables(saved: string, tableName: IptablesTable): string {
  const lines = saved.split('\n').map((line) => line.trim())
  const start = lines.indexOf(`*${tableName}`)
  const table = start < 0 ? [] : lines.slice(start + 1, lines.indexOf('COMMIT', start) < 0 ? undefined : lines.indexOf('COMMIT', start))
  const chains = table.flatMap((line) => /^:([A-Z0-9_]+) /.exec(line)?.[1] ?? []).filter((name) => name.startsWith(chainPrefix))
  const jumps = table.filter((line) => {
    const target = /^-A (\S+) .*-[jg] (\S+)/.exec(line)
    return target?.[1] !== undefined && !target[1].startsWith(chainPrefix) && target[2]?.startsWith(chainPrefix) === true
  })
  if (chains.length === 0) return ''
  return restoreText(tableName, [...chains.map((name) => `:${name} - [0:0]`), ...jumps.map((jump) => jump.replace(/^-A/, '-D')), ...chains.map((name) => `-X ${name}`)])
}

/** A chain as iptables has it: what is long is several of them. */
interface RenderedChain extends TreeChain {
  readonly hook?: Chain['hook']
  readonly takes: boolean
  asksForOld: boolean
  readonly cgroups: string
}

/** First the one that bears the name. Of several that one has what draining empties; the others then are where nobody comes. */
function renderChain(ruleSet: RuleSet, chain: Chain, options: IptablesOptions): RenderedChain[] {
  const made: RenderedChain[] = []
  const cgroups = cgroupsBehind(chain, ruleSet)
  const grow = (): RenderedChain => {
    const more: RenderedChain = { name: `${nameOf(chain.name)}_${String(made.length)}`, takes: false, asksForOld: false, cgroups, rules: [] }
    made.push(more)
    return more
  }
  const into: RenderedChain = { name: nameOf(chain.name), ...(chain.hook === undefined ? {} : { hook: chain.hook }), takes: chain.takes === true, asksForOld: false, cgroups, rules: [] }
  made.push(into)
  for (const step of chain.steps) {
    if ((step.then.does === 'hold' || step.then.does === 'zone') && options.holds !== true) continue
    const all = verdicts(ruleSet, step.then, options)
    const [verdict] = all
    const [list, ports] = [listOf(ruleSet, step, options), step.when.find((match) => match.is === 'to-chosen-port')]
    if (step.when.some((match) => match.is === 'of-old-udp-socket')) into.asksForOld = true
    if (list !== undefined && verdict !== undefined) {
      // What follows in this chain is for those whom the list does not name, too.
      const asking = step === chain.steps.at(-1) && list.others.length === 0 || step.then.does === 'return' ? into : grow()
      if (asking !== into) into.rules.push(...conditionsOfAll(ruleSet, list.others, options).map((words) => joined([...words, `-j ${asking.name}`])))
      addQuestion(asking, spareBit(ruleSet, chain), verdict, list.fill(grow), grow)
    } else if (ports !== undefined && verdict !== undefined && all.length === 1 && isLong(ruleSet.sets[ports.transport])) {
      for (const words of conditionsOfAll(ruleSet, step.when.filter((match) => match !== ports), options)) addPorts(into, ruleSet.sets[ports.transport], joined(words), (ask) => askPorts(ports.transport, ask), verdict, grow)
    } else into.rules.push(...conditionsOfAll(ruleSet, step.when, options).flatMap((words) => all.map((each) => joined([...words, each]))))
  }
  return made
}

/** With more entries a list is asked in a chain of its own: with so many in each, all that narrow one another have some two hundred jumps between them. */
const fewEntries = 3

interface LongList {
  readonly others: readonly Match[]
  readonly fill: (grow: () => TreeChain) => (list: TreeChain, verdict: string) => void
}

/** What a step asks for, if that is a long list. */
function listOf(ruleSet: RuleSet, { when, then }: Step, options: IptablesOptions): LongList | undefined {
  const { sets } = ruleSet
  const places = { 'to-skipped-network': ['-d', sets.skip], 'from-skipped-network': ['-s', sets.skipSources], 'from-chosen-network': ['-s', sets.sources], 'to-chosen-network': ['-d', sets.servers] } as const
  for (const match of when) {
    const others = when.filter((other) => other !== match)
    if (match.is in places) {
      const [flag, { [options.family]: networks }] = places[match.is as keyof typeof places]
      if (networks.length > (then.does === 'jump' ? fewEntries : leafNetworks)) return { others, fill: (grow) => (list, verdict) => addNetworks(list, flag, networks, verdict, grow) }
    } else if (then.does === 'jump' && (match.is === 'from-chosen-interface' || match.is === 'by-chosen-user' || match.is === 'by-chosen-group' || match.is === 'in-chosen-cgroup')) {
      const entries = conditionsOf(ruleSet, match, options)
      if (entries.length > fewEntries) return { others, fill: () => (list, verdict) => void list.rules.push(...entries.map((entry) => joined([entry, verdict]))) }
    }
  }
  return undefined
}

/** What comes from elsewhere is marked `local` by nobody but who held it (it comes by lo), and what is sent here `forwarded` only by who answers a device. */
function spareBit({ marks }: RuleSet, { name }: Chain): number {
  return name.startsWith('out') ? marks.forwarded : marks.local
}

function conditionsOfAll(ruleSet: RuleSet, when: readonly Match[], options: IptablesOptions): string[][] {
  return when.map((match) => conditionsOf(ruleSet, match, options)).reduce<string[][]>((left, right) => left.flatMap((a) => right.map((b) => [...a, b])), [[]])
}

function linesOf({ name, rules }: RenderedChain): string[] {
  return rules.map((rule) => `-A ${name} ${rule}`)
}

function joined(words: readonly string[]): string {
  return words.filter((word) => word !== '').join(' ')
}

function askPorts(transport: 'tcp' | 'udp', list: string): string {
  return `${transport === 'udp' ? '-p udp ' : ''}-m multiport --dports ${list}`
}

function conditionsOf(ruleSet: RuleSet, match: Match, { family, oldUdp, until, hopless }: IptablesOptions): string[] {
  const { sets } = ruleSet
  switch (match.is) {
    case 'tcp-opening': return ['-p tcp -m tcp --syn']
    case 'tcp-going-on': return ['-p tcp -m tcp ! --syn']
    case 'tcp': case 'udp': return [`-p ${match.is}`]
    case 'icmp': return [family === 'ipv4' ? '-p icmp' : '-p icmpv6']
    case 'of-transparent-socket': return ['-m socket --transparent']
    case 'of-marked-socket': return [`-m socket --transparent --restore-skmark -m mark --mark ${masked(match.mark)}`]
    case 'from-loopback': return ['-i lo']
    case 'from-chosen-interface': return sets.interfaces.length === 0 ? ['! -i lo'] : sets.interfaces.map((name) => `-i ${name.replace(/\*$/, '+')}`)
    case 'from-calling-bridge': return ruleSet.bridgesCall === true ? [fromBridge.iptables] : []
    case 'original-direction': return ['-m conntrack --ctdir ORIGINAL']
    case 'reply-direction': return ['-m conntrack --ctdir REPLY']
    case 'marked': return [`-m mark --mark ${masked(match.mark)}`]
    case 'flow-marked': return [`-m connmark --mark ${masked(match.mark)}`]
    case 'flow-not-marked': return [`-m connmark ! --mark ${masked(match.mark)}`]
    case 'flow-new': return ['-m conntrack --ctstate NEW']
    case 'flow-established': return ['-m conntrack --ctstate ESTABLISHED,RELATED']
    case 'of-old-udp-socket': return [
      ...(oldUdp?.connected ?? []).filter((flow) => flow.family === family).map(({ local, remote }) => `-s ${local.address} -d ${remote.address} -p udp -m udp --sport ${local.port} --dport ${remote.port}`),
      ...portLists((oldUdp?.ports ?? []).map((port) => ({ from: port, to: port }))).map(({ text }) => `-p udp -m multiport --sports ${text}`),
    ]
    case 'not-translated': return ['-m conntrack ! --ctstate DNAT']
    // For IPv6 UNICAST asks only what kind of address it is; whether it is one of ours is asked of the routes by the other types.
    case 'to-elsewhere': return [`-m addrtype --dst-type UNICAST${family === 'ipv4' ? '' : ' -m addrtype ! --dst-type LOCAL,ANYCAST'}`]
    case 'to-own': return ['-m addrtype --dst-type LOCAL']
    case 'at-last-hop': return hopless === true ? [] : [family === 'ipv4' ? '-m ttl --ttl-lt 2' : '-m hl --hl-lt 2']
    case 'to-skipped-network': return sets.skip[family].map((network) => `-d ${network}`)
    case 'from-skipped-network': return sets.skipSources[family].map((network) => `-s ${network}`)
    case 'from-chosen-network': return sets.sources[family].map((network) => `-s ${network}`)
    case 'to-chosen-network': return sets.servers[family].map((network) => `-d ${network}`)
    case 'to-broadcast': return family === 'ipv4' ? ['-m addrtype --dst-type BROADCAST'] : []
    case 'to-link-local': case 'from-link-local': return family === 'ipv6' ? [`${match.is === 'to-link-local' ? '-d' : '-s'} ${linkLocalNetwork}`] : []
    case 'to-chosen-port': return portLists(sets[match.transport]).map(({ text }) => askPorts(match.transport, text))
    case 'to-port': return portLists(match.ports).map(({ text }) => `-p tcp -m multiport --dports ${text}`)
    case 'from-elsewhere': return ['-m addrtype ! --src-type LOCAL']
    case 'by-chosen-user': return sets.users.map(({ from, to }) => `-m owner --uid-owner ${from === to ? from : `${from}-${to}`}`)
    case 'by-chosen-group': return sets.groups.map(({ from, to }) => `-m owner --gid-owner ${from === to ? from : `${from}-${to}`}`)
    case 'in-chosen-cgroup': return cgroupsThere(ruleSet).map(({ path }) => `-m cgroup --path ${path}`)
    case 'leased': return [until === undefined ? '' : `-m time --datestop ${new Date(until * 1000).toISOString().slice(0, 19)}`]
  }
}

function verdicts(ruleSet: RuleSet, act: Act, options: IptablesOptions): string[] {
  if (act.does === 'hold') return [`-j NFLOG --nflog-group ${act.group} --nflog-size ${heldBytes}`, '-j DROP']
  const { family, relayPort, keptPort } = options
  if (act.does === 'hand-to-kept') return keptPort === undefined ? [] : [`-p tcp -j TPROXY --on-ip ${relayAddress[family]} --on-port ${keptPort}`]
  if (act.does === 'hand-to-proxy') return [`-j TPROXY --on-ip ${relayAddress[family]} --on-port ${act.port}`]
  if (act.does !== 'hand-to-relay') return [verdict(act)]
  if (ruleSet.way === 'redirect') return [...(act.mark === undefined ? [] : [`-p tcp -j MARK --set-xmark ${masked(act.mark)}`]), `-p tcp -j REDIRECT --to-ports ${relayPort}`]
  const hand = `-j TPROXY --on-ip ${relayAddress[family]} --on-port ${relayPort}${act.mark === undefined ? '' : ` --tproxy-mark ${masked(act.mark)}`}`
  // TPROXY wants one transport a rule.
  return act.transport === undefined ? carriedOf(ruleSet).map((transport) => `-p ${transport} ${hand}`) : [hand]
}

function verdict(act: Exclude<Act, { does: 'hand-to-relay' | 'hand-to-kept' | 'hand-to-proxy' | 'hold' }>): string {
  switch (act.does) {
    case 'jump': return `-j ${nameOf(act.to)}`
    case 'return': return '-j RETURN'
    case 'accept': return '-j ACCEPT'
    case 'mark': return `-j MARK --set-xmark ${masked(act.mark)}`
    case 'unmark': return `-j MARK --set-xmark 0x0/0x${act.mark.toString(16)}`
    case 'zone': return `-j CT --zone ${act.zone}`
    case 'mark-flow': return `-j CONNMARK --set-xmark ${masked(act.mark)}`
    case 'unmark-flow': return `-j CONNMARK --set-xmark 0x0/0x${act.mark.toString(16)}`
    // REJECT belongs to the filter table alone; and TPROXY without a listener has dropped already.
    case 'refuse': case 'drop': return '-j DROP'
  }
}

function jumpsTo(chains: readonly RenderedChain[]): string[] {
  return chains.flatMap(({ name, hook }) => (hook === undefined ? [] : [`${hookChain[hook]} -j ${name}`]))
}

/** Declaring a chain that exists empties it. */
function declare(name: string): string {
  return `:${name} - [0:0]`
}

function nameOf(chain: ChainName): string {
  return chainPrefix + chain.toUpperCase()
}

function masked(mark: number): string {
  const hex = `0x${mark.toString(16)}`
  return `${hex}/${hex}`
}

function restoreText(table: IptablesTable, lines: readonly string[]): string {
  return lines.length === 0 ? '' : `*${table}\n${lines.map((line) => `${line}\n`).join('')}COMMIT\n`
}
