import { Failure } from '../contract/failure.ts'
import type { Backend, InterceptionPlan } from '../plan/plan.ts'
import type { MachineFacts, ToolFacts } from './machineFacts.ts'

/** nft first: its table dies with its holder, both families change in one transaction, and DNAT is seen. Then iptables as distributions ship it, then the old one. */
export const backendPreference: readonly Backend[] = ['nft', 'iptables', 'iptables-legacy']

/**
 * The backend to use: the one the plan names, else the best usable one. One that hands packets over as they are is better than any that redirects.
 * @throws Failure `backend-missing` (the named one cannot be used) or `no-backend`, with the reasons as detail.
 */
export function chooseBackend(plan: Pick<InterceptionPlan, 'backend'>, facts: Pick<MachineFacts, 'tools'>): Backend {
  const best = bestTool(plan, facts)
  if (best !== undefined) return best.backend
  const reasonOf = (backend: Backend): string => facts.tools.find((tool) => tool.backend === backend)?.reason ?? `${backend} was not found`
  if (plan.backend !== 'auto') throw new Failure('backend-missing', `${plan.backend} was asked for and cannot be used here: ${reasonOf(plan.backend)}`)
  throw new Failure('no-backend', 'Neither nftables nor iptables can be used on this machine', backendPreference.map((backend) => `${backend}: ${reasonOf(backend)}`).join('; '))
}

/** Why the kernel can only redirect what the plan asks for (`ToolFacts.redirectsBecause`); undefined: it can do better, or nothing is known of it. */
export function redirectReason(plan: Pick<InterceptionPlan, 'backend'>, facts: Pick<MachineFacts, 'tools'>): string | undefined {
  return bestTool(plan, facts)?.redirectsBecause
}

function bestTool(plan: Pick<InterceptionPlan, 'backend'>, { tools }: Pick<MachineFacts, 'tools'>): ToolFacts | undefined {
  const candidates = (plan.backend === 'auto' ? backendPreference : [plan.backend]).flatMap((backend) => tools.filter((tool) => tool.backend === backend && tool.usable))
  return candidates.find((tool) => tool.redirectsBecause === undefined) ?? candidates[0]
}
