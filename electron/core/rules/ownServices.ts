import type { InterceptionPlan } from '../plan/plan.ts'
import { legsOn } from './proxyLegs.ts'
import type { Carried, Step } from './ruleSet.ts'

/**
 * Flows for services of this machine. Towards the service the relay bears the client's address, and connects by lo. What the service answers is meant for that address, so it would leave
 * this machine: conntrack keeps `uplink` for the relay's connection (as for those to a proxy in TPROXY mode, `proxyLegs.ts`), and by that the answers get `local`, which leads them back to lo.
 */
export function hasIncoming({ scope }: Pick<InterceptionPlan, 'scope'>, carried: Carried): boolean {
  return carried.incoming === true || scope.includes('incoming')
}

/** Of prerouting, behind what diverts: the relay's connections to services, on lo. */
export function servicesIn({ marks }: Pick<InterceptionPlan, 'marks'>): Step[] {
  return [
    // A service whose socket takes on the mark of what opened it (tcp_fwmark_accept) would answer as if it were the relay.
    { when: [{ is: 'from-loopback' }, { is: 'original-direction' }, { is: 'flow-marked', mark: marks.uplink }, { is: 'marked', mark: marks.uplink }], then: { does: 'unmark', mark: marks.uplink } },
    { when: [{ is: 'from-loopback' }, { is: 'original-direction' }, { is: 'flow-marked', mark: marks.uplink }], then: { does: 'return' } },
    // An answer after the relay's socket has gone: on lo any program that has that port on all addresses would get it.
    { when: [{ is: 'from-loopback' }, { is: 'udp' }, { is: 'flow-marked', mark: marks.uplink }], then: { does: 'drop' } },
    legsOn({ marks }),
  ]
}

/** Of prerouting, what goes on of a flow that is the relay's: it needs no more than to stay here, whatever iptables' DNAT, which is asked later, makes of where it goes. */
export function incomingOn({ marks }: Pick<InterceptionPlan, 'marks'>, { transports }: Carried): Step[] {
  return [
    ...(!transports.includes('tcp') ? [] : [{ when: [{ is: 'tcp-going-on' }, { is: 'original-direction' }, { is: 'flow-marked', mark: marks.forwarded }, { is: 'to-own' }], then: { does: 'jump', to: 'divert' } } satisfies Step]),
    // It has no socket of its own here, since the service has that address and port: all of it comes to the listener.
    ...(!transports.includes('udp') ? [] : [{ when: [{ is: 'udp' }, { is: 'original-direction' }, { is: 'flow-marked', mark: marks.forwarded }, { is: 'to-own' }], then: { does: 'jump', to: 'in_on' } } satisfies Step]),
  ]
}

/** Of output, ahead of where the relay's own packets are let go: the connection by which a service is reached in its client's name. */
export function serviceReached({ marks }: Pick<InterceptionPlan, 'marks'>): Step {
  return { when: [{ is: 'marked', mark: marks.uplink }, { is: 'original-direction' }, { is: 'to-own' }, { is: 'from-elsewhere' }], then: { does: 'mark-flow', mark: marks.uplink } }
}

/** Of output, behind that: what somebody here answers on such a connection, and the kernel's resets for it. */
export function answersBack({ marks }: Pick<InterceptionPlan, 'marks'>): Step[] {
  return [
    { when: [{ is: 'flow-marked', mark: marks.uplink }], then: { does: 'mark', mark: marks.local } },
    { when: [{ is: 'flow-marked', mark: marks.uplink }], then: { does: 'return' } },
  ]
}
