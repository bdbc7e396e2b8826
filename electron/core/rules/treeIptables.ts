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
const leafNetworks = 16
/** So many multiport lists, or branches of them. */
const leafLists = 8
/** What -m multiport takes in one rule; a range counts as two. */
const multiportLimit = 15

/**
 * Adds rules to `into` that say `verdict` for addresses in one of the networks (sorted and apart, of one family), then whatever `rest` is, a verdict as well. `-g`: a branch does not
 * come back, so whoever is in none of its networks is as far as if he had passed all rules.
 * @param grow makes another chain
 */
export function addNetworks(into: TreeChain, flag: '-s' | '-d', networks: readonly string[], verdict: string, rest: string | undefined, grow: () => TreeChain): void {
  const add = (chain: TreeChain, some: readonly Cidr[]): void => {
    if (some.length <= leafNetworks) chain.rules.push(...some.map(({ text }) => `${flag} ${text} ${verdict}`))
    else {
      const [low, high] = halves(some)
      for (const half of [low, high]) {
        const [only] = half
        if (half.length === 1 && only !== undefined) chain.rules.push(`${flag} ${only.text} ${verdict}`)
        else {
          const branch = grow()
          chain.rules.push(`${flag} ${coverOf(half)} -g ${branch.name}`)
          add(branch, half)
        }
      }
    }
    if (rest !== undefined) chain.rules.push(rest)
  }
  add(into, networks.map(parseCidr))
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
export function areMany(networks: readonly string[]): boolean {
  return networks.length > leafNetworks
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
