import { readFileSync } from 'node:fs'

import type { Backend } from '#core/plan/plan.ts'
import { fromBridge } from '#core/rules/names.ts'
import { ask } from './doctorFacts.ts'
import { loadInScratch } from './tryBackend.ts'

/** What bridges here mean for forwarded flows: `mend` only where some of them would fail. */
export interface BridgeFacts {
  readonly fact: string
  readonly mend?: string
}

/**
 * Where br_netfilter shows the rules of IP what a bridge carries, they are asked before ip_rcv(), which lets go of the socket TPROXY gave the packet; and are not asked again. A
 * SYN that waits comes by lo instead, and what follows finds its socket by address; a first datagram, or a SYN that does not wait, finds none. So those are left alone.
 * @param isTold the rules can tell what comes in by a bridge
 */
export async function lookAtBridges(isTold = true): Promise<BridgeFacts> {
  const shown = await ask('ip', ['-o', 'link', 'show', 'type', 'bridge'])
  const names = (shown ?? '').split('\n').flatMap((line) => /^\d+: ([^:@]+)/.exec(line)?.[1] ?? [])
  if (names.length === 0) return { fact: 'there are none' }
  const list = names.slice(0, 5).join(', ')
  if (!bridgesCallRules()) return { fact: `${list}: what they route is seen, what stays within one of them is not` }
  const what = isTold ? 'are left alone: they go on, and are not seen' : 'fail while the gate takes them, as this kernel cannot tell what comes in by a bridge'
  return {
    fact: `${list}, and bridge-nf-call-iptables is on (Docker sets it): from behind it, UDP and connections that do not wait for their server ${what}`,
    mend: `choose TCP and let connections wait (no --no-hold)${isTold ? '' : ', or leave "forwarded" out (--scope local)'}, or sudo sysctl net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0, which changes how containers are kept apart`,
  }
}

/** Two files of this network namespace. What single bridges have for themselves is not asked. */
export function bridgesCallRules(): boolean {
  return ['iptables', 'ip6tables'].some((family) => {
    try {
      return readFileSync(`/proc/sys/net/bridge/bridge-nf-call-${family}`, 'latin1').trim() === '1'
    } catch {
      return false
    }
  })
}

/** Whether rules of this backend can tell what comes in by a bridge: tried in a namespace made for it, and only where `bridgesCallRules`. */
export async function canTellBridges(backend: Backend): Promise<boolean> {
  const text = backend === 'nft'
    ? `add table inet trial\nadd chain inet trial bare\nadd rule inet trial bare ${fromBridge.nft} return\n`
    : `*mangle\n:TRIAL - [0:0]\n-A TRIAL ${fromBridge.iptables} -j RETURN\nCOMMIT\n`
  return (await loadInScratch(backend, text, true)) === undefined
}
