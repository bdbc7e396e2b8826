import { takesDevices } from '../plan/takesDevices.ts'
import { defaultPriority, type Backend, type InterceptionPlan } from '../plan/plan.ts'

/** What the three tools cannot do alike, because the kernel makes it so. Everything else is equal, and tested to be (test/net/equality). */
export type DifferenceId = 'no-listener-forwarded' | 'no-listener-local' | 'published-ports' | 'both-families' | 'taken-back-by' | 'foreign-flush' | 'many-choices' | 'priority'

export interface BackendDifference {
  readonly id: DifferenceId
  readonly title: string
  /** What it is on each, in a person's words. */
  readonly on: Readonly<Record<Backend, string>>
  /** Whether a plan is touched by it. */
  readonly concerns: (plan: Pick<InterceptionPlan, 'tcp' | 'udp' | 'scope' | 'exclude' | 'sources' | 'excludeSources' | 'servers' | 'users' | 'groups' | 'priority'>) => boolean
  /**
   * For tests that judge by packets: verdicts which the backends may give differently for one probe, in that state. None: it is not seen in a single flow's verdict.
   */
  readonly verdicts?: { readonly when: 'no-listener'; readonly scope: 'local' | 'forwarded'; readonly on: Readonly<Record<Backend, readonly ProbeVerdict[]>> }
}
/** What becomes of a new flow: reaches its server past us, is refused at once, or is answered by nothing. */
export type ProbeVerdict = 'direct' | 'refused' | 'silence'

const always = (): boolean => true
const iptablesBoth = (text: string): Readonly<Record<'iptables' | 'iptables-legacy', string>> => ({ iptables: text, 'iptables-legacy': text })

export const backendDifferences: readonly BackendDifference[] = [
  {
    id: 'no-listener-forwarded', title: 'Should the relay be gone, new flows of devices',
    on: { nft: 'reach their server directly', ...iptablesBoth('are dropped, until the rules are taken back seconds later') },
    concerns: takesDevices,
    verdicts: { when: 'no-listener', scope: 'forwarded', on: { nft: ['direct'], iptables: ['silence'], 'iptables-legacy': ['silence'] } },
  },
  {
    id: 'no-listener-local', title: 'Should the relay be gone, this computer’s new flows',
    on: { nft: 'are refused at once (TCP) or dropped (UDP)', ...iptablesBoth('are dropped, until the rules are taken back seconds later') },
    concerns: ({ scope }) => scope.includes('local'),
    verdicts: { when: 'no-listener', scope: 'local', on: { nft: ['refused', 'silence'], iptables: ['silence'], 'iptables-legacy': ['silence'] } },
  },
  {
    id: 'published-ports', title: 'Ports that are translated on the way in (DNAT, published ports of containers)',
    on: { nft: 'are chosen by the port behind the translation, and their server is the real one', ...iptablesBoth('are chosen by the port before it; what is meant for this computer’s own addresses is left alone, or, where services of this computer are included, taken, and its server is the real one') },
    concerns: takesDevices,
  },
  {
    id: 'both-families', title: 'IPv4 and IPv6',
    on: { nft: 'change in one transaction', ...iptablesBoth('change one after the other, a few milliseconds apart') },
    concerns: always,
  },
  {
    id: 'taken-back-by', title: 'When Sluice is killed, rules are taken back',
    on: { nft: 'by the kernel at once, where tables can have an owner (Linux 5.12); else by the guard', ...iptablesBoth('by the guard; should it be killed as well, nothing new is taken after twelve seconds') },
    concerns: always,
  },
  {
    id: 'foreign-flush', title: 'When somebody else flushes all rules,',
    on: { nft: 'ours stay, where tables can have an owner', iptables: 'ours go too, and are put back within a second', 'iptables-legacy': 'ours go too, and are put back within seconds' },
    concerns: always,
  },
  {
    id: 'many-choices', title: 'Very many ports, networks or users',
    on: { nft: 'are looked up in sets, as quickly as few', ...iptablesBoth('cost each new flow a few dozen rules (ports and networks stand in a tree of chains), users and groups one each; what is under way pays nothing') },
    concerns: ({ tcp, udp, exclude, sources, excludeSources, servers, users, groups }) => tcp.length + udp.length > 15 || [exclude, sources, excludeSources, servers, users, groups].some((list) => list.length > 15),
  },
  {
    id: 'priority', title: 'Where chains are entered among others’',
    on: { nft: 'is as chosen', ...iptablesBoth('is where the mangle table is, whatever is chosen') },
    concerns: ({ priority }) => priority.prerouting !== defaultPriority.prerouting || priority.output !== defaultPriority.output,
  },
]

/** What a person should know of a backend for a plan: title and what it is there. */
export function differencesOf(backend: Backend, plan: Parameters<BackendDifference['concerns']>[0]): { readonly id: DifferenceId; readonly title: string; readonly text: string }[] {
  return backendDifferences.filter(({ concerns }) => concerns(plan)).map(({ id, title, on }) => ({ id, title, text: on[backend] }))
}
