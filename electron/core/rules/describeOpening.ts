import { saidOfCgroup } from '../plan/describeCgroup.ts'
import { describePlan, namedPorts } from '../plan/describePlan.ts'
import type { InterceptionPlan } from '../plan/plan.ts'
import { takesDevices } from '../plan/takesDevices.ts'
import { redirectReason } from './chooseBackend.ts'
import { tcpAlone } from './compileRedirect.ts'
import type { MachineFacts } from './machineFacts.ts'

/** What opening the gate does on this machine, in plain sentences: the plan, and what of it the kernel leaves undone. */
export function describeOpening(plan: InterceptionPlan, facts: Pick<MachineFacts, 'tools' | 'cgroups'>): string[] {
  const { cgroups } = facts
  const missing = cgroups === undefined || !plan.scope.includes('local') ? [] : plan.cgroups.filter((path) => !cgroups.includes(path)).map((path) => saidOfCgroup(path, 'missing'))
  return [...(redirectReason(plan, facts) === undefined ? describePlan(plan) : [...describePlan(tcpAlone(plan), false), ...describeLosses(plan, facts)]), ...missing]
}

/** What is lost where the kernel can only redirect; empty: nothing is. */
export function describeLosses(plan: InterceptionPlan, facts: Pick<MachineFacts, 'tools'>): string[] {
  const reason = redirectReason(plan, facts)
  if (reason === undefined) return []
  const sentences = [`This kernel cannot hand connections over as they are (${reason}), so TCP is redirected (NAT), with losses.`]
  if (plan.udp.length > 0) sentences.push(`${namedPorts('UDP', plan.udp)} cannot be intercepted${plan.refuse.length > 0 ? ' or refused' : ''}: left alone.`)
  if (takesDevices(plan)) {
    sentences.push(
      `Servers see this computer’s address${plan.keepPort ? ' and ports' : ''} instead of the devices’.`,
      'The relay listens on every address of this computer; whoever speaks to it directly is turned away.',
    )
  }
  if (plan.scope.includes('incoming')) sentences.push('Services of this computer see this computer itself as their client: what they let it do, they let anybody do who reaches them.')
  if (plan.hold) sentences.push('A connection is accepted before its server has answered, so a closed port looks open for a moment.')
  return sentences
}
