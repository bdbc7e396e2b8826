import { Failure } from '../contract/failure.ts'
import type { Backend, InterceptionPlan } from './plan.ts'

/**
 * Whether an open gate can go from one plan to the other as it stands: what relayed flows hang on (marks, the routing table, the relay's port) and who holds the rules must stay.
 * @throws Failure `cannot-change`, naming what differs.
 */
export function checkChange(before: InterceptionPlan, after: InterceptionPlan, backend: Backend): void {
  const refuse = (what: string, why?: string): never => {
    throw new Failure('cannot-change', `${what} cannot be changed while the gate is open${why === undefined ? '' : ` (${why})`}`)
  }
  if (after.backend !== before.backend && after.backend !== backend) refuse('The tool that loads the rules')
  if (after.relayPort !== before.relayPort) refuse('The relay’s port')
  if (after.keepPort !== before.keepPort) refuse('Whether devices’ own ports are kept', 'to conntrack, connections under way would move to another zone and become strangers to firewalls')
  if (JSON.stringify(after.priority) !== JSON.stringify(before.priority)) refuse('Priorities')
  if (after.table !== before.table) refuse('The routing table')
  if ((['forwarded', 'local', 'uplink'] as const).some((mark) => after.marks[mark] !== before.marks[mark])) refuse('The marks')
}
