import { Failure } from '../contract/failure.ts'
import { parseHandOver } from './handOver.ts'
import { parsePlan } from './parsePlan.ts'
import { parsePorts } from './parsePorts.ts'
import { defaultMarks, defaultPriority, defaultRelayPort, defaultTable, defaultUdpIdle, type BackendChoice, type InterceptionPlan, type PortRange, type Priority, type Scope, type UdpIdle } from './plan.ts'

/** What a person chose, as typed; everything left out gets its default. */
export interface PlanWish {
  readonly tcp: string
  readonly udp?: string
  /** UDP ports to refuse; they need not stand in `udp` as well. */
  readonly refuse?: string
  readonly udpIdle?: Partial<UdpIdle>
  /** Default: true. */
  readonly hold?: boolean
  /** Default: false. */
  readonly keepPort?: boolean
  /** Each as `parseHandOver` reads it; its ports need not stand in `tcp` as well. */
  readonly send?: readonly string[]
  /** Default: local and forwarded. */
  readonly scope?: readonly Scope[]
  readonly interfaces?: readonly string[]
  readonly sources?: readonly string[]
  readonly excludeSources?: readonly string[]
  readonly servers?: readonly string[]
  readonly users?: readonly number[]
  readonly groups?: readonly number[]
  readonly cgroups?: readonly string[]
  readonly exclude?: readonly string[]
  readonly backend?: BackendChoice
  readonly relayPort?: number
  /** Bits to mark with where the usual ones are somebody else's. */
  readonly marks?: InterceptionPlan['marks']
  /** Routing table. */
  readonly table?: number
  /** What is left out is as usual. */
  readonly priority?: Partial<Priority>
}

/**
 * A wish as a plan.
 * @throws Failure as `parsePorts` and `parsePlan` do; a user that is no id is `bad-user`.
 */
export function makePlan(wish: PlanWish): InterceptionPlan {
  for (const [what, id] of [...(wish.users ?? []).map((each) => ['user', each] as const), ...(wish.groups ?? []).map((each) => ['group', each] as const)]) {
    // 0xffffffff is (uid_t)-1, the kernel's "nobody at all"
    if (!Number.isInteger(id) || id < 0 || id > 0xffff_fffe) throw new Failure('bad-user', `${String(id)} is no ${what} id`)
  }
  for (const name of wish.interfaces ?? []) if (name.length > 15) throw new Failure('bad-interface', `${JSON.stringify(name.slice(0, 40))} is longer than an interface's name can be (15 characters)`)
  for (const text of [wish.exclude, wish.sources, wish.excludeSources, wish.servers].flatMap((list) => list ?? [])) if (text.length > 64) throw new Failure('bad-cidr', `${JSON.stringify(text.slice(0, 40))} is no network`)
  return parsePlan({
    version: 1,
    tcp: portsOrNone(wish.tcp),
    udp: portsOrNone(wish.udp ?? ''),
    refuse: portsOrNone(wish.refuse ?? ''),
    udpIdle: { ...defaultUdpIdle, ...wish.udpIdle },
    hold: wish.hold ?? true,
    keepPort: wish.keepPort ?? false,
    handOver: (wish.send ?? []).map(parseHandOver),
    scope: wish.scope ?? ['local', 'forwarded'],
    interfaces: wish.interfaces ?? [],
    sources: wish.sources ?? [],
    excludeSources: wish.excludeSources ?? [],
    servers: wish.servers ?? [],
    users: wish.users ?? [],
    groups: wish.groups ?? [],
    cgroups: wish.cgroups ?? [],
    exclude: wish.exclude ?? [],
    backend: wish.backend ?? 'auto',
    relayPort: wish.relayPort ?? defaultRelayPort,
    marks: wish.marks ?? defaultMarks,
    table: wish.table ?? defaultTable,
    priority: { ...defaultPriority, ...wish.priority },
  })
}

function portsOrNone(text: string): PortRange[] {
  return text.trim() === '' ? [] : parsePorts(text)
}
