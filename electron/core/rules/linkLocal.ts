import type { InterceptionPlan } from '../plan/plan.ts'
import { always } from './choosing.ts'
import { holdGroup } from './names.ts'
import type { Chain, Match, Step } from './ruleSet.ts'

/**
 * A program's flows to link-local addresses of IPv6. The kernel asks for such a destination strictly on its interface, so that the default route of our table is not found; a route of that
 * interface's own is (`core/rules/renderRoutes.ts`, kept by the helper), and the packet comes by lo counting as come by the interface. The relay's socket of such a connection is bound to
 * the interface, and neither TPROXY nor a socket match, which look on lo, finds it; the ordinary way up does.
 */
export const toLinkLocal: Match = { is: 'to-link-local' }

type Marks = Pick<InterceptionPlan, 'marks'>

/**
 * On its way out. Its flow is marked when it has come by lo and not here: should its interface have no route of ours yet, it goes out as if there were no rule, and must do so to its end.
 * Held here, where it is known by which interface it would have left.
 */
export function linkLocalLeaving({ marks }: Marks, holds: boolean): Step[] {
  const near: readonly Match[] = [toLinkLocal, { is: 'from-link-local' }]
  return [
    ...(holds ? [{ when: [...near, { is: 'tcp-opening' }], then: { does: 'hold', group: holdGroup } } satisfies Step] : []),
    { when: near, then: { does: 'mark', mark: marks.local } },
    // Under another address of this machine's no answer would reach the program by the same interface.
    { when: [toLinkLocal], then: { does: 'return' } },
  ]
}

/** One that waited: its flow is marked by lo, too. */
export function linkLocalReleased({ marks }: Marks): Step {
  return { when: [{ is: 'marked', mark: marks.uplink }, { is: 'marked', mark: marks.local }, toLinkLocal], then: { does: 'return' } }
}

/** Come by lo. Never held: one that waited has done so, another one is its copy. A datagram always goes to the listener, which knows its flow. */
export function linkLocalChain({ marks }: Marks, tcp: boolean): Chain {
  return {
    name: 'near_lo',
    family: 'ipv6',
    steps: [
      ...(tcp ? [{ when: [{ is: 'tcp-going-on' }], then: { does: 'accept' } } satisfies Step] : []),
      always({ does: 'mark-flow', mark: marks.local }),
      always({ does: 'hand-to-relay' }),
      ...(tcp ? [{ when: [{ is: 'tcp' }], then: { does: 'refuse' } } satisfies Step] : []),
      always({ does: 'drop' }),
    ],
  }
}
