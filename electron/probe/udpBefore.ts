import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'

import type { InterceptionPlan } from '#core/plan/plan.ts'
import { takesDevices } from '#core/plan/takesDevices.ts'
import type { OldUdp } from '#core/rules/ruleSet.ts'
import { parseSockets } from './ports.ts'

/** Long enough for a call or a game to have spoken both ways; a person hardly notices it. */
const settleFor = 1500
/** Of each kind; a machine with more has some of its flows taken in their middle, which goes well for nearly all protocols. */
const mostOld = 2048

/**
 * What must be known of the UDP that is there before rules for a plan, in this process's network namespace: how long to let conntrack look round before
 * taking (milliseconds; 0 when it runs already or nobody's UDP from elsewhere is chosen) and, asked later, the local sockets.
 */
export function udpBefore(plan: Pick<InterceptionPlan, 'udp' | 'scope'>): { readonly settle: number; readonly listOldUdp: () => Promise<OldUdp> } {
  const forwards = plan.udp.length > 0 && takesDevices(plan)
  return {
    settle: forwards && !conntrackRuns() ? settleFor : 0,
    listOldUdp: plan.udp.length > 0 && plan.scope.includes('local') ? () => listOldUdp(plan) : () => Promise.resolve({ connected: [], ports: [] }),
  }
}

/** It has entries. (Without any it may run all the same; then waiting costs a moment.) */
function conntrackRuns(): boolean {
  try {
    return Number(readFileSync('/proc/sys/net/netfilter/nf_conntrack_count', 'latin1')) > 0
  } catch {
    return false
  }
}

/** Unreadable tables count as empty. */
async function listOldUdp(plan: Pick<InterceptionPlan, 'udp'>): Promise<OldUdp> {
  return oldUdpIn(await Promise.all(['udp', 'udp6'].map((name) => readFile(`/proc/net/${name}`, 'latin1').catch(() => ''))), plan)
}

/** The sockets that matter to a plan, from the texts of /proc/net/udp and udp6. */
export function oldUdpIn(tables: readonly string[], { udp }: Pick<InterceptionPlan, 'udp'>): OldUdp {
  const connected: OldUdp['connected'][number][] = []
  const ports = new Set<number>()
  const seen = new Set<string>()
  for (const { localAddress, localPort, remoteAddress, remotePort } of tables.flatMap((text) => parseSockets(text, 'udp'))) {
    if (remotePort === 0) {
      if (localPort !== 0 && ports.size < mostOld) ports.add(localPort)
      continue
    }
    if (connected.length >= mostOld || !udp.some(({ from, to }) => remotePort >= from && remotePort <= to)) continue
    const family = remoteAddress.includes(':') ? 'ipv6' : 'ipv4'
    const key = `${localAddress} ${localPort} ${remoteAddress} ${remotePort}`
    // Several sockets may share all four (SO_REUSEPORT); an address of each family in one socket cannot be.
    if (seen.has(key) || localAddress.includes(':') !== (family === 'ipv6')) continue
    seen.add(key)
    connected.push({ family, local: { address: localAddress, port: localPort }, remote: { address: remoteAddress, port: remotePort } })
  }
  return { connected, ports: [...ports].sort((a, b) => a - b) }
}
