import { ask, readText } from './doctorFacts.ts'

/** What bridges here mean for forwarded flows: `mend` only where some of them would fail. */
export interface BridgeFacts {
  readonly fact: string
  readonly mend?: string
}

/**
 * Where br_netfilter shows the rules of IP what a bridge carries, they are asked before ip_rcv(), which lets go of the socket TPROXY gave the packet. A SYN that waits comes
 * by lo instead, and what follows finds its socket by address; a first datagram, or a SYN that does not wait, finds none.
 */
export async function lookAtBridges(): Promise<BridgeFacts> {
  const [called, shown] = await Promise.all([bridgesCallRules(), ask('ip', ['-o', 'link', 'show', 'type', 'bridge'])])
  const names = (shown ?? '').split('\n').flatMap((line) => /^\d+: ([^:@]+)/.exec(line)?.[1] ?? [])
  if (names.length === 0) return { fact: 'there are none' }
  const list = names.slice(0, 5).join(', ')
  if (!called) return { fact: `${list}: what they route is seen, what stays within one of them is not` }
  return { fact: `${list}, and bridge-nf-call-iptables is on (Docker sets it): behind it, ports of UDP that are chosen and connections that do not wait for their server fail while the gate takes them`, mend: 'choose TCP alone and let connections wait (no --no-hold), or leave "forwarded" out (--scope local), or sudo sysctl net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0, which changes how containers are kept apart' }
}

/** Two files; without them no tool need be asked. */
export async function bridgesCallRules(): Promise<boolean> {
  const called = await Promise.all(['iptables', 'ip6tables'].map((family) => readText(`/proc/sys/net/bridge/bridge-nf-call-${family}`)))
  return called.includes('1')
}
