import { Failure } from '../contract/failure.ts'
import type { InterceptionPlan } from '../plan/plan.ts'
import { takesDevices } from '../plan/takesDevices.ts'
import { always, chosenOpenings, lastHop, narrowForwarded, narrowLocal, skips } from './choosing.ts'
import type { Chain, Step } from './ruleSet.ts'

/**
 * What is left of a plan where the kernel can only redirect: TCP. Of UDP the relay would never learn where it was meant to go; and a SYN that waits is let in by marks
 * that lead to TPROXY.
 * @throws Failure `no-tproxy`: nothing is left.
 */
export function tcpAlone(plan: InterceptionPlan): InterceptionPlan {
  if (plan.tcp.length === 0) throw new Failure('no-tproxy', 'This kernel cannot hand packets over as they are (TPROXY), and without that UDP cannot be intercepted')
  return { ...plan, udp: [], refuse: [], hold: false, keepPort: false }
}

/**
 * The nat chains see the first packet of each flow and conntrack does the rest, both ways and for as long as the flow lives: what is relayed needs no rule any more. The
 * rules that redirect stay while draining all the same (nobody jumps to them then): each keeps conntrack and its translations going.
 */
export function redirectChains(plan: InterceptionPlan): Chain[] {
  const { marks, scope } = plan
  const chains: Chain[] = []
  if (takesDevices(plan)) {
    const narrowing = narrowForwarded(plan)
    chains.push(
      // The mark is for a firewall that lets in what bears it.
      { name: 'take', steps: [always({ does: 'hand-to-relay', mark: marks.forwarded })] },
      { name: 'fwd_port', takes: true, steps: chosenOpenings(plan, 'take') },
      ...narrowing.chains,
      ...(scope.includes('forwarded') ? [{ name: 'fwd_sel', steps: [lastHop, ...skips(plan), always({ does: 'jump', to: narrowing.first })] } satisfies Chain] : []),
      ...(scope.includes('incoming') ? [{ name: 'in_sel', steps: [...skips(plan), always({ does: 'jump', to: narrowing.first })] } satisfies Chain] : []),
      {
        name: 'pre',
        hook: 'prerouting',
        steps: [
          { when: [{ is: 'from-loopback' }], then: { does: 'return' } },
          ...(scope.includes('forwarded') ? [{ when: [{ is: 'from-chosen-interface' }, { is: 'to-elsewhere' }], then: { does: 'jump', to: 'fwd_sel' } } satisfies Step] : []),
          ...(scope.includes('incoming') ? [{ when: [{ is: 'from-chosen-interface' }, { is: 'to-own' }], then: { does: 'jump', to: 'in_sel' } } satisfies Step] : []),
        ],
      },
    )
  }
  if (scope.includes('local')) {
    const narrowing = narrowLocal(plan)
    chains.push(
      { name: 'out_take', steps: [always({ does: 'hand-to-relay' })] },
      { name: 'out_port', takes: true, steps: chosenOpenings(plan, 'out_take') },
      ...narrowing.chains,
      { name: 'out_sel', steps: [...skips(plan), always({ does: 'jump', to: narrowing.first })] },
      {
        name: 'out',
        hook: 'output',
        steps: [
          // The relay's own connections to servers.
          { when: [{ is: 'marked', mark: marks.uplink }], then: { does: 'return' } },
          always({ does: 'jump', to: 'out_sel' }),
        ],
      },
    )
  }
  return chains
}
