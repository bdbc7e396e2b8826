import { Failure } from '#core/contract/failure.ts'
import { checkChange } from '#core/plan/checkChange.ts'
import type { Backend, InterceptionPlan } from '#core/plan/plan.ts'
import { takesDevices } from '#core/plan/takesDevices.ts'
import { carriedBy, compileRules } from '#core/rules/compileRules.ts'
import type { MachineFacts } from '#core/rules/machineFacts.ts'
import type { Carried, RuleSet } from '#core/rules/ruleSet.ts'
import { readCgroupIds } from '#probe/cgroups.ts'
import { digestRules } from '#probe/digestRules.ts'
import { refreshFacts } from '#probe/refreshFacts.ts'
import { udpBefore } from '#probe/udpBefore.ts'

import { udpKnown } from './ruleKeeper.ts'
import type { UdpBefore } from './ruleKeeper.ts'

/** What an open gate has in the kernel, and what it was compiled from. */
export interface AppliedRules {
  readonly plan: InterceptionPlan
  readonly facts: MachineFacts
  readonly backend: Backend
  /** The relay listens on IPv6 too. Where it cannot, IPv6 is left alone: rules without a listener would only break it. */
  readonly ipv6: boolean
  /** Only where rules redirect: it listens on every address, and so for devices, too. */
  readonly everywhere?: boolean
  /** lo ceased to let in what the relay sends again; what a person was shown is judged by what it was at opening. */
  readonly strictLo?: boolean
  /** Bridges show the rules what they carry, and rules can tell what comes in by one. */
  readonly bridgesCall?: boolean
  /** What the relay may carry. */
  readonly carried: Carried
  readonly ruleSet: RuleSet
}

/**
 * The rules for another plan from those that are applied, for the facts of now.
 * Fails with `digest-mismatch`, `cannot-change`, or as `compileRules` does.
 */
export async function compileChange(applied: AppliedRules, plan: InterceptionPlan, digest: string): Promise<AppliedRules & { readonly udpBefore: UdpBefore }> {
  checkChange(applied.plan, plan, applied.backend)
  const facts = await refreshFacts(applied.facts)
  requireDigest(plan, facts, digest)
  const { carried, backend, ipv6, everywhere, strictLo, bridgesCall } = applied
  if (everywhere === false && takesDevices(plan)) throw new Failure('cannot-change', 'Devices cannot be added while the gate is open: the relay listens for this computer’s programs alone')
  // Rules for local flows and for UDP ask conntrack; since the first of them it has seen what is under way.
  const watched = carried.local || carried.transports.includes('udp')
  const next = applyTo({ plan, facts, backend, ipv6, ...(everywhere === undefined ? {} : { everywhere }), ...(strictLo === undefined ? {} : { strictLo }), ...(bridgesCall === undefined ? {} : { bridgesCall }) }, carried)
  return { ...next, udpBefore: watched ? udpKnown : udpBefore({ udp: next.ruleSet.sets.udp, scope: plan.scope }) }
}

/** Rules for what the relay can carry, and for the cgroups that are there now. */
export function applyTo(wish: Omit<AppliedRules, 'ruleSet' | 'carried'>, before?: Carried): AppliedRules {
  const { plan, facts, ipv6, strictLo, bridgesCall } = wish
  const ruleSet = compileRules(plan, { ...facts, ipv6: facts.ipv6 && ipv6, ...(strictLo === true ? { strictNow: true } : {}) }, before)
  return { ...wish, carried: carriedBy(plan, before), ruleSet: { ...withCgroupsNow(ruleSet, facts), ...(bridgesCall === true ? { bridgesCall } : {}) } }
}

/** A rule about a cgroup that is not there would be refused, and all others with it. */
export function withCgroupsNow(ruleSet: RuleSet, { cgroupPrefix }: Pick<MachineFacts, 'cgroupPrefix'>): RuleSet {
  const { cgroups } = ruleSet.sets
  return cgroupPrefix === undefined || cgroups.length === 0 ? ruleSet : { ...ruleSet, cgroupIds: readCgroupIds(cgroupPrefix, cgroups.map(({ path }) => path)) }
}

/** What a person was shown is what is applied. */
export function requireDigest(plan: InterceptionPlan, facts: MachineFacts, digest: string): RuleSet {
  const ruleSet = compileRules(plan, facts)
  if (digestRules(ruleSet) === digest) return ruleSet
  // Who cannot try the kernel takes it for able.
  if (ruleSet.way === 'redirect') throw new Failure('digest-mismatch', 'this kernel can only redirect, which could not be seen without administrator rights: start Sluice as root to see what that means')
  throw new Failure('digest-mismatch', 'the rules to apply are not those that were shown; try once more')
}
