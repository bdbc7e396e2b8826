import { Failure } from '#core/contract/failure.ts'
import type { InterceptionPlan } from '#core/plan/plan.ts'
import { routeProtocol } from '#core/rules/names.ts'

import type { MarkWriter } from '#core/rules/markWriters.ts'
import { ask } from './doctorFacts.ts'
import { readMarkWriters } from './readMarkWriters.ts'
import { readRouting } from './readRouting.ts'
import type { IpRule, ListedRule, Routing } from './readRouting.ts'

const wholeMask = 0xffff_ffff
/** Bits that well-known neighbours use, whether or not they run now: Cilium and Kubernetes 8-15, Weave and Tailscale 16-23, and wg-quick's whole mark. */
const neighbourBits = 0x00ff_ff00 | 0xca6c

/**
 * Looks whether the plan's marks and routing table are free here: ip rules of others that look at bits of ours, rules of theirs that write them, and other people's routes or rules in our
 * table. Reads only; ours (protocol 77) are left out. `routing`: what there is, with the routes of the plan's table; `writers`: rules that write marks; default: they are looked at now.
 * @throws Failure `marks-taken` or `table-taken`, naming the rule and what is free
 */
export async function checkConflicts(plan: Pick<InterceptionPlan, 'marks' | 'table'>, routing?: Routing, writers?: readonly MarkWriter[]): Promise<void> {
  const [{ rules, routes }, writing] = await Promise.all([routing ?? readRouting([plan.table]), writers ?? readMarkWriters()])
  const others = ofOthers(rules)
  const { looking: [looking], writing: [written], free } = conflictsIn(plan.marks, others, writing)
  const words = free === undefined ? '' : `; free here are ${free}`
  if (looking !== undefined) throw new Failure('marks-taken', `an ip rule of somebody else's looks at mark bits that Sluice would use: ${looking}${words}`)
  if (written !== undefined) throw new Failure('marks-taken', `a rule of somebody else's writes mark bits that Sluice would use: ${written}${words}`)
  const user = others.find(({ rule }) => rule.table === String(plan.table))
  const isForeign = routes.some(({ table, protocol }) => table === plan.table && protocol !== String(routeProtocol))
  const route = user === undefined && isForeign ? await foreignRoute(plan.table) : undefined
  if (user === undefined && route === undefined) return
  const what = user === undefined ? `there is a route of somebody else's in it: ${route ?? ''}` : `an ip rule of somebody else's looks it up: ${describe(user)}`
  throw new Failure('table-taken', `the routing table ${String(plan.table)} is in use: ${what}; free is --table ${String(await freeTable(plan.table, others))}`)
}

/** What others do with bits of these marks. */
export interface MarkConflicts {
  /** Their ip rules that look at them, as `ip` says it. */
  readonly looking: readonly string[]
  /** Chains whose rules write them, with all bits they write. */
  readonly writing: readonly string[]
  /** Marks that nobody uses: `--marks A,B,C`. */
  readonly free?: string
}

/** The same of marks alone, all of it, as it is now. */
export async function findMarkConflicts(marks: InterceptionPlan['marks']): Promise<MarkConflicts> {
  const [{ rules }, writing] = await Promise.all([readRouting([]), readMarkWriters()])
  return conflictsIn(marks, ofOthers(rules), writing)
}

function ofOthers(rules: readonly ListedRule[]): ListedRule[] {
  return rules.filter(({ rule }) => rule.protocol !== String(routeProtocol))
}

function conflictsIn(marks: InterceptionPlan['marks'], others: readonly ListedRule[], writers: readonly MarkWriter[]): MarkConflicts {
  const ours = (marks.forwarded | marks.local | marks.uplink) >>> 0
  const free = freeBits(others, writers)
  return {
    looking: others.filter(({ rule }) => (bitsOf(rule) & ours) !== 0).map(describe),
    writing: [...new Set(writers.filter(({ bits }) => (bits & ours) !== 0).map(describeWriter))],
    ...(free.length < 3 ? {} : { free: `--marks ${free.slice(0, 3).map(hex).join(',')}` }),
  }
}

/** A rule with a mask looks at the mask's bits; one without at the whole mark, and so meets a packet of ours only if its mark has a bit of ours. */
function bitsOf({ fwmark, fwmask }: IpRule): number {
  if (fwmark === undefined) return 0
  const mask = fwmask === undefined ? wholeMask : Number(fwmask)
  return (mask === wholeMask ? Number(fwmark) : mask) >>> 0
}

/** First those that no well-known neighbour uses, even if it does not run now. */
function freeBits(others: readonly ListedRule[], writers: readonly MarkWriter[]): number[] {
  const used = [...others.map(({ rule }) => bitsOf(rule)), ...writers.map(({ bits }) => bits)].reduce((all, bits) => all | bits, 0)
  // High bits first: whole marks of others are small numbers.
  const free = [25, 28, 31, 30, 29, 27, 26, 24, ...Array.from({ length: 24 }, (_, index) => 23 - index)].map((bit) => (1 << bit) >>> 0).filter((bit) => (used & bit) === 0)
  return [...free.filter((bit) => (bit & neighbourBits) === 0), ...free.filter((bit) => (bit & neighbourBits) !== 0)]
}

function describeWriter({ chain, bits }: MarkWriter): string {
  return `in ${chain}, bits ${hex(bits)}`
}

async function foreignRoute(table: number): Promise<string | undefined> {
  for (const flag of ['-4', '-6']) {
    const listed = (await ask('ip', ['-N', flag, 'route', 'show', 'table', String(table)])) ?? ''
    const line = listed.split('\n').find((each) => each.trim() !== '' && !new RegExp(`\\bproto ${String(routeProtocol)}\\b`).test(each))
    if (line !== undefined) return line.trim().slice(0, 200)
  }
  return undefined
}

async function freeTable(from: number, others: readonly ListedRule[]): Promise<number> {
  for (let table = from + 1; ; table++) {
    if (!others.some(({ rule }) => rule.table === String(table)) && (await foreignRoute(table)) === undefined) return table
  }
}

function describe({ family, rule }: ListedRule): string {
  return `"${String(rule.priority ?? 0)}: fwmark ${rule.fwmark ?? '0'}${rule.fwmask === undefined ? '' : `/${rule.fwmask}`} lookup ${rule.table ?? '?'}" (${family})`
}

function hex(bit: number): string {
  return `0x${bit.toString(16)}`
}
