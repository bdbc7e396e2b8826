import { parsePlan } from './parsePlan.ts'
import type { InterceptionPlan } from './plan.ts'

/** The plan with other cgroups in the place of these; itself where it has none of them. @throws Failure as `parsePlan` does */
export function moveCgroups(plan: InterceptionPlan, from: readonly string[], to: readonly string[]): InterceptionPlan {
  if (!plan.cgroups.some((path) => from.includes(path))) return plan
  return parsePlan({ ...plan, cgroups: [...new Set([...plan.cgroups.filter((path) => !from.includes(path)), ...to])] })
}
