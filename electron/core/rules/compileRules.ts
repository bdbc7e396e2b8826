import { Failure } from '../contract/failure.ts'
import { mergeCidrs, parseCidr } from '../plan/parseCidr.ts'
import { takesDevices } from '../plan/takesDevices.ts'
import { routeProtocol, type InterceptionPlan, type Scope } from '../plan/plan.ts'
import type { MachineFacts } from './machineFacts.ts'
import { redirectReason } from './chooseBackend.ts'
import { always, chosenOpenings, fromBesides, lastHop, narrowForwarded, narrowLocal, skips } from './choosing.ts'
import { redirectChains, tcpAlone } from './compileRedirect.ts'
import { zoneChains } from './keepPorts.ts'
import { answersBack, hasIncoming, incomingOn, serviceReached, servicesIn } from './ownServices.ts'
import { handChain, hasLegs, legMark, legsIn, legsOn, legsOut, spokenForOthers } from './proxyLegs.ts'
import { linkLocalChain, linkLocalLeaving, linkLocalReleased, toLinkLocal } from './linkLocal.ts'
import { holdGroup, linkLocalNetwork, neverTaken } from './names.ts'
import { transports, type Carried, type Chain, type ChainName, type Family, type Match, type Networks, type RuleSet, type Step, type Transport } from './ruleSet.ts'

/** Those whose SYNs can wait for their server. */
const holdable = ['local', 'forwarded'] as const satisfies readonly Scope[]

/**
 * What the kernel must do for a plan on this machine. Pure: the window shows it and the helper applies it, and both get the same digest.
 * @param before while open: what the relay may carry from plans before this one.
 * A cgroup need not be there: a unit that is chosen may be yet to start.
 * @throws Failure `unknown-interface`, naming what there is; `no-tproxy` where only UDP is asked for and the kernel can only redirect.
 */
export function compileRules(wish: InterceptionPlan, facts: MachineFacts, before?: Carried): RuleSet {
  checkNames(wish, facts)
  const redirects = redirectReason(wish, facts) !== undefined
  if (redirects && hasLegs(wish, { local: false, transports: [] })) throw new Failure('no-tproxy', 'This kernel can only redirect, and a proxy in TPROXY mode cannot be reached then: send to it by PROXY protocol or SOCKS5')
  const plan = redirects ? tcpAlone(wish) : wish
  const { marks } = plan
  const carried = carriedBy(plan, before)
  return {
    version: 1,
    ...(redirects ? { way: 'redirect' } : {}),
    families: facts.ipv6 ? ['ipv4', 'ipv6'] : ['ipv4'],
    scope: plan.scope,
    marks,
    priority: { prerouting: plan.priority.prerouting, output: plan.priority.output },
    sets: {
      tcp: plan.tcp,
      udp: plan.udp,
      interfaces: takesDevices(plan) ? plan.interfaces : [],
      users: plan.scope.includes('local') ? mergeIds(plan.users) : [],
      groups: plan.scope.includes('local') ? mergeIds(plan.groups) : [],
      cgroups: plan.scope.includes('local') ? plan.cgroups.map((path) => ({ path, level: path.split('/').length })) : [],
      skip: networks([...neverTaken.ipv4, ...neverTaken.ipv6, ...(!redirects && plan.scope.includes('local') ? [] : [linkLocalNetwork]), ...plan.exclude]),
      skipSources: networks(plan.excludeSources),
      sources: networks(plan.sources),
      servers: networks(plan.servers),
    },
    chains: redirects ? redirectChains(plan) : tproxyChains(plan, facts, carried, before !== undefined),
    routing: {
      table: plan.table,
      protocol: routeProtocol,
      preference: plan.priority.rule,
      // Equal preference is asked in the order added. The middle one: with src_valid_mark (wg-quick and Tailscale set it) the reverse look-up of a diverted
      // packet carries our mark and `iif lo`; in our table it would find only `local` and the packet would be taken for a martian.
      rules: redirects
        ? []
        : [
            { mark: marks.local, lookup: plan.table },
            { mark: marks.forwarded, incoming: 'lo', lookup: 'main' },
            { mark: marks.forwarded, lookup: plan.table },
          ],
    },
    cgroupPrefix: facts.cgroupPrefix ?? '',
    ...(before === undefined ? {} : { carried }),
  }
}

function tproxyChains(plan: InterceptionPlan, facts: MachineFacts, carried: Carried, changed: boolean): Chain[] {
  const holds = holdScopes(plan, facts)
  // What is relayed stays in its zone, whatever is taken now.
  const keeps = plan.keepPort && (holds.includes('forwarded') || (changed && facts.lenientLo === true))
  const legs = hasLegs(plan, carried)
  const chains: Chain[] = [...(keeps ? zoneChains(plan.marks, legs ? legMark(plan.marks) : undefined) : []), ...prerouting(plan, facts, carried, holds, changed ? (carried.held ?? []) : holds)]
  if (plan.scope.includes('local')) chains.push(...output(plan, carried, holds))
  else if (carried.local) chains.push({ name: 'out', hook: 'output', steps: relayedAlready(plan, carried) })
  else {
    const steps = legs || hasIncoming(plan, carried) ? bySpokenFor(plan, carried) : ownDatagrams(plan, carried)
    if (steps.length > 0) chains.push({ name: 'out', hook: 'output', steps })
  }
  return chains
}

/**
 * Whose SYNs can wait for their server. A program's own goes out a second time and conntrack sees nothing odd; one from elsewhere has to come in by lo a
 * second time (on the way out, a masquerade of somebody's would change its sender), and strict reverse-path rules know better than to let it.
 */
function holdScopes({ hold, scope, tcp }: InterceptionPlan, { lenientLo, strictNow }: MachineFacts): readonly Scope[] {
  if (!hold || tcp.length === 0) return []
  return holdable.filter((each) => scope.includes(each) && (each === 'local' || (lenientLo === true && strictNow !== true)))
}

/** What may be at the relay once these rules have stood. */
export function carriedBy({ scope, tcp, udp, handOver, hold }: InterceptionPlan, before?: Carried): Carried {
  const held = holdable.filter((each) => before?.held?.includes(each) === true || (hold && tcp.length > 0 && scope.includes(each)))
  return {
    ...(hasLegs({ handOver }, before ?? { local: false, transports: [] }) ? { legs: true } : {}),
    ...(scope.includes('incoming') || before?.incoming === true ? { incoming: true } : {}),
    ...(held.length === 0 ? {} : { held }),
    local: scope.includes('local') || before?.local === true,
    transports: transports.filter((transport) => ({ tcp, udp })[transport].length > 0 || before?.transports.includes(transport) === true),
  }
}

/** The same rules without what takes new flows: draining, and where resuming begins. */
export function drainRules(ruleSet: RuleSet): RuleSet {
  return { ...ruleSet, chains: ruleSet.chains.map((chain) => (chain.takes === true ? { ...chain, steps: [] } : chain)) }
}

/** `releases`: whose SYNs wait, or waited when that was chosen last and still come. */
function prerouting(plan: InterceptionPlan, { ipv6 }: MachineFacts, carried: Carried, holds: readonly Scope[], releases: readonly Scope[]): Chain[] {
  const { scope, marks, udp, keepPort } = plan
  const carries = (transport: Transport): boolean => carried.transports.includes(transport)
  const divert: Step['then'] = { does: 'jump', to: 'divert' }
  const pre: Step[] = [
    // A UDP flow has a socket of its own from its first datagram on, in each direction.
    ...(!carries('udp') ? [] : [{ when: [{ is: 'udp' }, { is: 'of-transparent-socket' }], then: udp.length === 0 ? divert : { does: 'jump', to: 'divert_udp' } } satisfies Step]),
    // Packets of flows that are already the relay's. Not SYNs: a port tuple used again while its old socket is in TIME_WAIT must reach the take chains at once.
    ...(!carries('tcp') ? [] : [{ when: [{ is: 'tcp-going-on' }, { is: 'of-transparent-socket' }], then: divert } satisfies Step]),
    // Path-MTU discovery and unreachables of flows that carry a client's address.
    { when: [{ is: 'icmp' }, { is: 'of-transparent-socket' }], then: divert },
  ]
  const legs = hasLegs(plan, carried)
  const incoming = hasIncoming(plan, carried)
  if (legs) pre.push(legsIn(plan))
  if (incoming) pre.push(...servicesIn(plan))
  else if (legs) pre.push(legsOn(plan))
  if (releases.length > 0) {
    // What the relay held and sends again.
    pre.push({ when: [{ is: 'from-loopback' }, { is: 'tcp-opening' }, { is: 'marked', mark: marks.uplink }, { is: 'marked', mark: marks.local }], then: { does: 'jump', to: 'take_lo' } })
  }
  // A translated one has to go on as conntrack knows it.
  const hold = (of: Scope, also: readonly Match[] = []): Step[] => (holds.includes(of) ? [{ when: [{ is: 'tcp-opening' }, ...also, { is: 'not-translated' }], then: { does: 'hold', group: holdGroup } }] : [])
  const takesIncoming = scope.includes('incoming')
  if (carried.local) {
    pre.push({ when: [{ is: 'from-loopback' }, { is: 'original-direction' }, { is: 'marked', mark: marks.local }], then: { does: 'jump', to: 'take_lo' } })
  }
  const divertSteps = [always({ does: 'mark', mark: marks.forwarded }), always({ does: 'accept' })]
  const chains: Chain[] = [{ name: 'divert', steps: divertSteps }]
  const hand: Step[] = [
    always({ does: 'hand-to-relay', mark: marks.forwarded }),
    // There is no relay, and it goes direct: not ours then, nor when there is one again.
    always({ does: 'unmark-flow', mark: marks.forwarded }),
  ]
  if (incoming && carries('udp')) chains.push({ name: 'in_on', steps: hand })
  if (carries('udp') && udp.length > 0) {
    // The socket found may be another flow's, bound to this server and about to be connected to its own client (there is no doing both at once), and then not be found again on the way
    // up: the kernel would answer that nobody listens. TPROXY gives the packet its socket here and now: the flow's own if that is connected, the listener otherwise.
    chains.push({ name: 'divert_udp', steps: [{ when: [{ is: 'to-chosen-port', transport: 'udp' }], then: { does: 'hand-to-relay', mark: marks.forwarded, transport: 'udp' } }, ...divertSteps] })
  }
  if (takesDevices(plan) || incoming) pre.push({ when: [{ is: 'from-loopback' }], then: { does: 'return' } })
  if (incoming) pre.push(...incomingOn(plan, carried))
  if (takesDevices(plan)) {
    if (carries('tcp')) {
      // A listener that is flooded answers by cookies (tcp(7), tcp_syncookies) and has no socket for the packet that ends such a handshake; nor may what
      // comes late for a flow of the relay's reach a server that knows nothing of it.
      pre.push({ when: [{ is: 'tcp-going-on' }, { is: 'original-direction' }, { is: 'flow-marked', mark: marks.forwarded }], then: { does: 'jump', to: 'fwd_on' } })
    }
    if (scope.includes('forwarded')) pre.push(...openings(plan, [{ is: 'from-chosen-interface' }, { is: 'to-elsewhere' }], 'fwd_sel'))
    if (takesIncoming) pre.push(...openings(plan, [{ is: 'from-chosen-interface' }, { is: 'to-own' }], 'in_sel'))
    const narrowing = narrowForwarded(plan)
    /** UDP has no first packet to tell by: what went to and fro before, or goes direct now, stays as it is. */
    const underWay: Step[] = udp.length === 0 ? [] : [{ when: [{ is: 'udp' }, { is: 'flow-established' }, { is: 'flow-not-marked', mark: marks.forwarded }], then: { does: 'return' } }]
    // No router passes them on, and what is said to this machine at one is not for the relay.
    const nearby: Step[] = scope.includes('local') ? [{ when: [toLinkLocal], then: { does: 'return' } }] : []
    chains.push(
      {
        name: 'take',
        steps: [
          // So that the flow is ours even after the relay has let go of it for its silence (see `fwd_sel`), or has no socket for it yet (see `pre`).
          always({ does: 'mark-flow', mark: marks.forwarded }),
          ...hold('forwarded', takesIncoming ? [{ is: 'to-elsewhere' }] : []),
          // A lost flow is worse than one that is not seen.
          { when: [{ is: 'from-calling-bridge' }], then: { does: 'unmark-flow', mark: marks.forwarded } },
          { when: [{ is: 'from-calling-bridge' }], then: { does: 'return' } },
          ...hand,
        ],
      },
      ...(carries('tcp') ? [{ name: 'fwd_on', steps: hand } satisfies Chain] : []),
      { name: 'fwd_port', takes: true, steps: chosenOpenings(plan, 'take') },
      ...narrowing.chains,
      ...(scope.includes('forwarded') ? [{ name: 'fwd_sel', steps: [...underWay, lastHop, ...nearby, ...skips(plan), always({ does: 'jump', to: narrowing.first })] } satisfies Chain] : []),
      ...(takesIncoming ? [{ name: 'in_sel', steps: [...underWay, fromBesides, ...nearby, ...skips(plan), always({ does: 'jump', to: narrowing.first })] } satisfies Chain] : []),
    )
  }
  if (carried.local && ipv6) chains.push(linkLocalChain(plan, carries('tcp')))
  if (carried.local || releases.length > 0) {
    chains.push({
      name: 'take_lo',
      // A local packet that got here is on lo with a foreign destination. Without a listener it must be refused, or it would reach whatever program listens on the wildcard address.
      steps: [
        ...(carried.local ? [{ when: [toLinkLocal], then: { does: 'jump', to: 'near_lo' } } satisfies Step] : []),
        ...(releases.length === 0
          ? []
          : [
              ...(!releases.includes('forwarded') ? [] : [{ when: [{ is: 'marked', mark: marks.uplink }, { is: 'flow-not-marked', mark: marks.local }], then: { does: 'mark-flow', mark: marks.forwarded } } satisfies Step]),
              ...(keepPort && holds.includes('forwarded') ? [{ when: [{ is: 'marked', mark: marks.uplink }, { is: 'flow-not-marked', mark: marks.local }], then: { does: 'hand-to-kept' } } satisfies Step] : []),
              { when: [{ is: 'marked', mark: marks.uplink }], then: { does: 'hand-to-relay' } } satisfies Step,
              { when: [{ is: 'tcp' }, { is: 'marked', mark: marks.uplink }], then: { does: 'refuse' } } satisfies Step,
            ]),
        ...hold('local'),
        always({ does: 'hand-to-relay' }),
        ...(!carries('tcp') ? [] : [{ when: [{ is: 'tcp' }], then: { does: 'refuse' } } satisfies Step]),
        always({ does: 'drop' }),
      ],
    })
  }
  if (legs) chains.push(handChain(plan))
  return [...chains, { name: 'pre', hook: 'prerouting', steps: pre }]
}

function output(plan: InterceptionPlan, carried: Carried, holds: readonly Scope[]): Chain[] {
  const { marks, udp } = plan
  const narrowing = narrowLocal(plan)
  return [
    // The flow's mark comes first so that even a packet's own re-routing failing leaves the flow known.
    { name: 'out_take', steps: [...linkLocalLeaving(plan, holds.includes('local')), always({ does: 'mark-flow', mark: marks.local }), always({ does: 'mark', mark: marks.local })] },
    { name: 'out_port', takes: true, steps: chosenOpenings(plan, 'out_take') },
    ...narrowing.chains,
    {
      name: 'out_sel',
      steps: [
        ...(hasLegs(plan, carried) ? [spokenForOthers] : []),
        ...skips(plan),
        ...(udp.length === 0 ? [] : [{ when: [{ is: 'to-broadcast' }], then: { does: 'return' } } satisfies Step, { when: [{ is: 'of-old-udp-socket' }], then: { does: 'return' } } satisfies Step]),
        always({ does: 'jump', to: narrowing.first }),
      ],
    },
    {
      name: 'out',
      hook: 'output',
      steps: [
        ...relayedAlready(plan, carried),
        ...openings({ ...plan, udp: [] }, [], 'out_sel'),
        // What conntrack has seen answered went to and fro before, or goes direct now, and stays as it is; but not what it knows as the relay's own, lately (`ownDatagrams`).
        ...(udp.length === 0
          ? []
          : [
              { when: [{ is: 'udp' }, { is: 'flow-new' }], then: { does: 'jump', to: 'out_sel' } } satisfies Step,
              { when: [{ is: 'udp' }, { is: 'original-direction' }, { is: 'flow-marked', mark: marks.forwarded }], then: { does: 'jump', to: 'out_sel' } } satisfies Step,
              // Of those, what goes direct is not the relay's any more: it stays as it is, and what answers it is not for `in_sel`.
              { when: [{ is: 'udp' }, { is: 'original-direction' }, { is: 'flow-marked', mark: marks.forwarded }, { is: 'flow-not-marked', mark: marks.local }], then: { does: 'unmark-flow', mark: marks.forwarded } } satisfies Step,
            ]),
      ],
    },
  ]
}

/** Only what may be taken goes on to where that is decided: everything else that passes by costs the same whatever was chosen. */
function openings({ tcp, udp }: InterceptionPlan, also: readonly Match[], to: ChainName): Step[] {
  return [
    ...(tcp.length === 0 ? [] : [{ when: [{ is: 'tcp-opening' }, ...also], then: { does: 'jump', to } } satisfies Step]),
    ...(udp.length === 0 ? [] : [{ when: [{ is: 'udp' }, ...also], then: { does: 'jump', to } } satisfies Step]),
  ]
}

/**
 * A device may come to use the port its address has towards a server by us, and a program one that the relay has had. To conntrack that is the relay's own flow, so it bears a mark; else
 * their datagrams would pass by as old ones (`fwd_sel`, `out`), and a device's answers go to whom the relay's port is for.
 */
function ownDatagrams({ marks }: InterceptionPlan, { transports: carries }: Carried): Step[] {
  if (!carries.includes('udp')) return []
  return [{ when: [{ is: 'udp' }, { is: 'marked', mark: marks.uplink }, { is: 'original-direction' }], then: { does: 'mark-flow', mark: marks.forwarded } }]
}

/** Output of the relay itself in a client's name, and what answers that. `released`: steps for a SYN that waited. */
function bySpokenFor(plan: InterceptionPlan, carried: Carried, released: readonly Step[] = []): Step[] {
  const [legs, incoming] = [hasLegs(plan, carried), hasIncoming(plan, carried)]
  return [
    ...(legs ? legsOut(plan) : []),
    ...released,
    ...(incoming ? [serviceReached(plan)] : []),
    ...ownDatagrams(plan, carried),
    // The relay's own connections to servers.
    { when: [{ is: 'marked', mark: plan.marks.uplink }], then: { does: 'return' } },
    ...(legs || incoming ? answersBack(plan) : []),
  ]
}

/** Output of the relay itself, and of local flows it carries. */
function relayedAlready(plan: InterceptionPlan, carried: Carried): Step[] {
  const { marks } = plan
  const hold = plan.hold || carried.held !== undefined
  const { transports: carries } = carried
  return [
    ...bySpokenFor(
      plan,
      carried,
      // From here on its flow is known by conntrack.
      hold && carries.includes('tcp') ? [linkLocalReleased(plan), { when: [{ is: 'marked', mark: marks.uplink }, { is: 'marked', mark: marks.local }], then: { does: 'mark-flow', mark: marks.local } }] : [],
    ),
    ...(carries.includes('tcp')
      ? [
          // What conntrack forgot of a program's connection (somebody emptied it, as a firewall's reload may) the relay's next packet to it tells again. The flow's direction is that one's then.
          { when: [{ is: 'tcp-going-on' }, { is: 'flow-new' }, { is: 'to-own' }, { is: 'from-elsewhere' }], then: { does: 'mark-flow', mark: marks.local } } satisfies Step,
          // The relay's side, and the kernel's resets in its name.
          { when: [{ is: 'tcp-going-on' }, { is: 'flow-marked', mark: marks.local }, { is: 'from-elsewhere' }], then: { does: 'return' } } satisfies Step,
          { when: [{ is: 'reply-direction' }, { is: 'tcp-going-on' }, { is: 'flow-marked', mark: marks.local }, { is: 'to-elsewhere' }], then: { does: 'mark', mark: marks.local } } satisfies Step,
        ]
      : []),
    // Every later packet of a taken flow needs the mark again; it lives in conntrack so that draining can empty the choice and go on marking.
    { when: [{ is: 'original-direction' }, { is: 'flow-marked', mark: marks.local }], then: { does: 'mark', mark: marks.local } },
    { when: [{ is: 'flow-marked', mark: marks.local }], then: { does: 'return' } },
  ]
}

function networks(texts: readonly string[]): Networks {
  const merged = mergeCidrs(texts.map(parseCidr))
  const of = (family: Family): string[] => merged.filter((cidr) => cidr.family === family).map((cidr) => cidr.text)
  return { ipv4: of('ipv4'), ipv6: of('ipv6') }
}

function mergeIds(ids: readonly number[]): { from: number; to: number }[] {
  const merged: { from: number; to: number }[] = []
  for (const id of ids) {
    const last = merged.at(-1)
    if (last !== undefined && id === last.to + 1) last.to = id
    else merged.push({ from: id, to: id })
  }
  return merged
}

function checkNames(plan: InterceptionPlan, facts: MachineFacts): void {
  if (takesDevices(plan)) {
    for (const name of plan.interfaces) {
      // A beginning may match what is yet to come (a container's veth), so it need not exist.
      if (name.endsWith('*') || facts.interfaces.includes(name)) continue
      const others = facts.interfaces.filter((other) => other !== 'lo').slice(0, 20)
      throw new Failure('unknown-interface', `There is no interface ${name} here; there ${others.length === 0 ? 'is none but lo' : `is ${others.join(', ')}`}`)
    }
  }
}
