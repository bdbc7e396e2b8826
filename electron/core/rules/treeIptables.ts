import { parseCidr, type Cidr } from '../plan/parseCidr.ts'
import type { PortRange } from '../plan/plan.ts'

/**
 * iptables asks one rule after another, so a thousand ports and hundreds of networks would cost each new flow hundreds of rules. Chains in a tree ask a few: sets
 * (`ipset`) would as well, but are a tool of their own, belong to no transaction and would have to be taken back by themselves. These are swept by the name they begin with, like all chains.
 */
export interface TreeChain {
  readonly name: string
  /** Without `-A NAME`. */
  readonly rules: string[]
}

/** So many networks are asked one by one. */
export const leafNetworks = 16
/** A chain has about so many branches. */
const branching = 16
/** So many multiport lists, or branches of them. */
const leafLists = 8
/** What -m multiport takes in one rule; a range counts as two. */
const multiportLimit = 15

/**
 * Adds rules to `into` that say `verdict`, which does not end the walk, for addresses in one of the networks (sorted and apart, of one family).
 * However they lie, four thousand are three branches deep, and each branch asks some sixteen rules at most.
 * @param grow makes another chain
 */
export function addNetworks(into: TreeChain, flag: '-s' | '-d', networks: readonly string[], verdict: string, grow: () => TreeChain): void {
  const add = (chain: TreeChain, branches: readonly Branch[]): void => {
    for (const { cover, within } of branches) {
      if (within.length === 0) chain.rules.push(`${flag} ${cover} ${verdict}`)
      else {
        const branch = grow()
        // Whoever is here and in none of the branch's networks is in none of those that follow.
        chain.rules.push(`${flag} ${cover} -g ${branch.name}`)
        add(branch, within)
      }
    }
  }
  add(into, branchesOf(networks))
}

/** A network that is asked for (nothing within), or one round several. */
interface Branch {
  readonly cover: string
  readonly within: readonly Branch[]
}

/** The lease is written anew every few seconds, with all there is to compare: what thousands of networks look like is found once. */
const found = new WeakMap<readonly string[], readonly Branch[]>()

function branchesOf(networks: readonly string[]): readonly Branch[] {
  const known = found.get(networks)
  if (known !== undefined) return known
  const grow = (some: readonly Cidr[]): Branch[] => {
    if (some.length <= leafNetworks) return some.map(({ text }) => ({ cover: text, within: [] }))
    const { parts, rest } = cut(some, Math.max(leafNetworks / 2, Math.ceil(some.length / branching)))
    return [...parts, rest].flatMap((part) => (part.length <= 1 ? grow(part) : [{ cover: coverOf(part), within: grow(part) }]))
  }
  const branches = grow(networks.map(parseCidr))
  found.set(networks, branches)
  return branches
}

/**
 * Adds rules to `into` that ask a list in a chain of its own, which comes back with the answer in one bit of the packet's mark: so there is one jump behind the list, not one for each of its entries.
 * nf_tables follows at most 15 jumps, `-g` among them, and before Linux 6.19 looks through a chain anew for every jump that leads to it: lists that each jump to the next would multiply.
 * The bit is clear again wherever the walk goes on.
 * @param bit of a mark of ours that no packet bears here @param verdict `-j RETURN` for whom the list names; else a jump for them, and everybody else returns
 * @param fill makes the list's rules, with a verdict that does not end the walk
 */
export function addQuestion(into: TreeChain, bit: number, verdict: string, fill: (list: TreeChain, verdict: string) => void, grow: () => TreeChain): void {
  const word = `0x${bit.toString(16)}`
  const [set, clear] = [`-j MARK --set-xmark ${word}/${word}`, `-j MARK --set-xmark 0x0/${word}`]
  const leaves = verdict === '-j RETURN'
  const list = grow()
  fill(list, leaves ? clear : set)
  into.rules.push(leaves ? set : clear, `-j ${list.name}`, `-m mark ! --mark ${word}/${word} -j RETURN`, clear, ...(leaves ? [] : [verdict]))
}

/**
 * Adds rules to `into` that say `verdict` for the ports (sorted and apart). Branches come back, and find no other one theirs.
 * @param words what else must be so @param ask the rule's words for a list of ports
 */
export function addPorts(into: TreeChain, ranges: readonly PortRange[], words: string, ask: (ports: string) => string, verdict: string, grow: () => TreeChain): void {
  const add = (chain: TreeChain, lists: readonly PortList[], also: string): void => {
    const rule = (...parts: readonly string[]): void => void chain.rules.push(parts.filter((part) => part !== '').join(' '))
    if (lists.length <= leafLists) {
      for (const { text } of lists) rule(also, ask(text), verdict)
      return
    }
    const size = Math.ceil(lists.length / leafLists)
    for (let at = 0; at < lists.length; at += size) {
      const some = lists.slice(at, at + size)
      const branch = grow()
      rule(also, ask(`${String(some[0]?.from)}:${String(some.at(-1)?.to)}`), `-j ${branch.name}`)
      // Here alone what only has to be asked once; the transport is what -m multiport wants to see in each rule.
      add(branch, some, also.startsWith('-p tcp') ? '-p tcp' : '')
    }
  }
  add(into, portLists(ranges), words)
}

/** Whether it takes a tree. */
export function isLong(ranges: readonly PortRange[]): boolean {
  return portLists(ranges).length > leafLists
}

export interface PortList extends PortRange {
  readonly text: string
}

/** Ports packed into as few multiport lists as the limit allows. */
export function portLists(ranges: readonly PortRange[]): PortList[] {
  const lists: { from: number; to: number; words: string[] }[] = []
  let room = 0
  for (const { from, to } of ranges) {
    const cost = from === to ? 1 : 2
    if (cost > room) {
      lists.push({ from, to, words: [] })
      room = multiportLimit
    }
    const list = lists.at(-1)
    list?.words.push(from === to ? String(from) : `${String(from)}:${String(to)}`)
    if (list !== undefined) list.to = to
    room -= cost
  }
  return lists.map(({ from, to, words }) => ({ from, to, text: words.join(',') }))
}

/**
 * Takes parts of more than `size` and at most twice that out of them, each with a network round it that has none of the parts after it: those deepest in go first. Halves alone would not
 * do: all addresses but one are 32 networks, or 128, of which each half has one.
 */
function cut(sorted: readonly Cidr[], size: number): { readonly parts: (readonly Cidr[])[]; readonly rest: readonly Cidr[] } {
  if (sorted.length <= size) return { parts: [], rest: sorted }
  const [low, high] = halves(sorted).map((half) => cut(half, size))
  const [parts, rest] = [[...(low?.parts ?? []), ...(high?.parts ?? [])], [...(low?.rest ?? []), ...(high?.rest ?? [])]]
  return rest.length > size ? { parts: [...parts, rest], rest: [] } : { parts, rest }
}

/** By the first bit in which they differ: of networks that are apart each has that bit. */
function halves(sorted: readonly Cidr[]): [readonly Cidr[], readonly Cidr[]] {
  const bit = commonBits(sorted)
  const at = sorted.findIndex((cidr) => bitOf(cidr, bit) === 1)
  return [sorted.slice(0, at), sorted.slice(at)]
}

/** The narrowest network that has them all. */
function coverOf(sorted: readonly Cidr[]): string {
  return parseCidr(`${sorted[0]?.text.split('/')[0] ?? ''}/${String(commonBits(sorted))}`).text
}

/** Sorted, so that the first and the last are furthest apart. */
function commonBits(sorted: readonly Cidr[]): number {
  const [first, last] = [sorted[0], sorted.at(-1)]
  if (first === undefined || last === undefined) return 0
  let bit = 0
  while (bit < first.length && bit < last.length && bitOf(first, bit) === bitOf(last, bit)) bit++
  return bit
}

function bitOf({ bytes }: Cidr, bit: number): number {
  return ((bytes[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1
}
