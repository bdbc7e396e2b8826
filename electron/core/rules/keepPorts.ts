import { keptZone } from './names.ts'
import type { Chain, RuleSet, Step } from './ruleSet.ts'

/**
 * A connection to a server with a device's address and port would be the same to conntrack as the device's own connection to the relay: stalls, and no masquerade. So
 * the device's side goes into a zone of its own. That must be decided before conntrack sees a packet, hence before it is known whether it will be taken; so only of a
 * SYN that was held and is sent again: it bears both marks, and all that follows belongs to a transparent socket which is not the relay's towards a server.
 *
 * `leg`: the mark of connections to a proxy, which bear `forwarded` among others and stay out.
 * The listener these go to bears the mark `forwarded`, and so do its answers, the first one included.
 */
export function zoneChains({ forwarded, local, uplink }: RuleSet['marks'], leg?: number): Chain[] {
  const zone: Step['then'] = { does: 'zone', zone: keptZone }
  return [
    // One that iptables gave the mark of its socket.
    { name: 'zone_up', early: true, steps: [{ when: [], then: { does: 'unmark', mark: uplink } }, { when: [], then: { does: 'accept' } }] },
    {
      name: 'zone_pre',
      hook: 'prerouting',
      early: true,
      steps: [
        // A program's own has come through output, where conntrack has seen it: then this changes nothing.
        { when: [{ is: 'from-loopback' }, { is: 'tcp-opening' }, { is: 'marked', mark: uplink }, { is: 'marked', mark: local }], then: zone },
        { when: [{ is: 'from-loopback' }], then: { does: 'return' } },
        { when: [{ is: 'tcp-going-on' }, { is: 'of-marked-socket', mark: uplink }], then: { does: 'jump', to: 'zone_up' } },
        { when: [{ is: 'tcp-going-on' }, { is: 'of-transparent-socket' }], then: zone },
      ],
    },
    { name: 'zone_out', hook: 'output', early: true, steps: [...(leg === undefined ? [] : [{ when: [{ is: 'marked', mark: leg }], then: { does: 'return' } } satisfies Step]), { when: [{ is: 'tcp' }, { is: 'marked', mark: forwarded }], then: zone }] },
  ]
}
