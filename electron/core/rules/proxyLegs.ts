import type { InterceptionPlan } from '../plan/plan.ts'
import type { Carried, Chain, Step } from './ruleSet.ts'

/**
 * The relay's connections to a proxy in TPROXY mode: they leave for the original destination, with the client's address, and must come to the proxy's listener.
 * They bear all three of our marks, which nothing else does: `local` leads them to lo by the rules that are there for local flows, and prerouting hands their
 * opening to the proxy. Conntrack keeps `uplink` for them, so that what the proxy answers (from the server's address to the client's) comes back by lo, too, and never
 * leaves this machine.
 */
export function legMark({ forwarded, local, uplink }: InterceptionPlan['marks']): number {
  return (forwarded | local | uplink) >>> 0
}

/** Whether there are, or may be some from before. */
export function hasLegs({ handOver }: Pick<InterceptionPlan, 'handOver'>, carried: Carried): boolean {
  return carried.legs === true || handOver.some(({ to }) => to.kind === 'tproxy')
}

/** Of prerouting, ahead of all that takes and behind what diverts. */
export function legsIn({ marks }: Pick<InterceptionPlan, 'marks'>): Step {
  return { when: [{ is: 'from-loopback' }, { is: 'tcp-opening' }, { is: 'marked', mark: legMark(marks) }], then: { does: 'jump', to: 'hand_lo' } }
}

/** Behind that: what belongs to a socket that is not transparent, or to none any more. */
export function legsOn({ marks }: Pick<InterceptionPlan, 'marks'>): Step {
  return { when: [{ is: 'from-loopback' }, { is: 'flow-marked', mark: marks.uplink }], then: { does: 'return' } }
}

export function handChain({ handOver }: Pick<InterceptionPlan, 'handOver'>): Chain {
  return {
    name: 'hand_lo',
    steps: [
      ...handOver.flatMap(({ ports, to }): Step[] => (to.kind === 'tproxy' ? [{ when: [{ is: 'to-port', ports }], then: { does: 'hand-to-proxy', port: to.port } }] : [])),
      // Nobody listens, or the port is sent there no more.
      { when: [{ is: 'tcp' }], then: { does: 'refuse' } },
    ],
  }
}

/** Of output, ahead of everything. */
export function legsOut({ marks }: Pick<InterceptionPlan, 'marks'>): Step[] {
  return [
    { when: [{ is: 'marked', mark: legMark(marks) }], then: { does: 'mark-flow', mark: marks.uplink } },
    { when: [{ is: 'marked', mark: legMark(marks) }], then: { does: 'return' } },
  ]
}

/** What such a proxy sends on in its client's name was recorded on its way to the proxy. Its answers come in by the rule that diverts to transparent sockets. */
export const spokenForOthers: Step = { when: [{ is: 'from-elsewhere' }], then: { does: 'return' } }
