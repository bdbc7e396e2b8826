import { formatPorts } from './formatPorts.ts'
import type { InterceptionPlan } from './plan.ts'

/** The plan's ports in few words: "tcp 80,443", "udp 53", "tcp 80 udp 53,443". */
export function formatPlanPorts({ tcp, udp }: Pick<InterceptionPlan, 'tcp' | 'udp'>): string {
  return [...(tcp.length === 0 ? [] : [`tcp ${formatPorts(tcp)}`]), ...(udp.length === 0 ? [] : [`udp ${formatPorts(udp)}`])].join(' ')
}
