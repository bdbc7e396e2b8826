import type { InterceptionPlan } from './plan.ts'

/** Whether a plan takes anything that comes in from elsewhere: routed through this computer, or meant for it. */
export function takesDevices({ scope }: Pick<InterceptionPlan, 'scope'>): boolean {
  return scope.includes('forwarded') || scope.includes('incoming')
}
