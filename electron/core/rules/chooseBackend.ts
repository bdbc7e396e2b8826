import { Failure } from '../contract/failure.ts'
import type { Backend, InterceptionPlan } from '../plan/plan.ts'
import type { MachineFacts } from './machineFacts.ts'

/** nft first: its table dies with its holder, both families change in one transaction, and DNAT is seen. Then iptables as distributions ship it, then the old one. */
const preference: readonly Backend[] = ['nft', 'iptables', 'iptables-legacy']

/**
 * The backend to use: the one the plan names, else the best usable one.
 * @throws Failure `backend-missing` (the named one cannot be used) or `no-backend`, with the reasons as detail.
 */
export function chooseBackend(plan: Pick<InterceptionPlan, 'backend'>, facts: Pick<MachineFacts, 'tools'>): Backend {
  const reasonOf = (backend: Backend): string => facts.tools.find((tool) => tool.backend === backend)?.reason ?? `${backend} was not found`
  const usable = (backend: Backend): boolean => facts.tools.some((tool) => tool.backend === backend && tool.usable)
  if (plan.backend !== 'auto') {
    if (usable(plan.backend)) return plan.backend
    throw new Failure('backend-missing', `${plan.backend} was asked for and cannot be used here: ${reasonOf(plan.backend)}`)
  }
  const best = preference.find(usable)
  if (best !== undefined) return best
  throw new Failure('no-backend', 'Neither nftables nor iptables can be used on this machine', preference.map((backend) => `${backend}: ${reasonOf(backend)}`).join('; '))
}
