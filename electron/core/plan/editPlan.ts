import * as v from 'valibot'

import { Failure } from '../contract/failure.ts'
import { handOverShape, withoutHandOvers } from './handOver.ts'
import type { HandOver } from './handOver.ts'
import { parsePlan } from './parsePlan.ts'
import { scopeShape } from './plan.ts'
import type { InterceptionPlan, Scope, UdpIdle } from './plan.ts'
import { portRange } from './portRange.ts'
import type { PortRange } from './portRange.ts'
import { withoutPorts } from './portSets.ts'
import type { Transport } from './transport.ts'
import { withoutNetworks } from './withoutNetworks.ts'

/** The plan's lists of networks that an edit may touch. */
export const networkLists = ['exclude', 'excludeSources', 'servers', 'sources'] as const
export type NetworkList = (typeof networkLists)[number]

/** The lists of whom it concerns, each empty for every one. */
export const nameLists = ['interfaces', 'users', 'groups', 'cgroups'] as const
export type NameList = (typeof nameLists)[number]

const ports = v.optional(v.pipe(v.array(portRange), v.maxLength(4096)), [])
const networks = v.optional(v.pipe(v.array(v.pipe(v.string(), v.maxLength(64))), v.maxLength(4096)), [])
const seconds = v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(86_400)))
const portEdit = v.optional(v.strictObject({ add: ports, remove: ports }), {})
const networkEdit = v.optional(v.strictObject({ add: networks, remove: networks }), {})
const id = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_fffe))
const ids = v.optional(v.pipe(v.array(id), v.maxLength(256)), [])
const texts = v.optional(v.pipe(v.array(v.pipe(v.string(), v.maxLength(1024))), v.maxLength(256)), [])
const every = v.optional(v.boolean(), false)
const idEdit = v.optional(v.strictObject({ add: ids, remove: ids, every }), {})
const textEdit = v.optional(v.strictObject({ add: texts, remove: texts, every }), {})

/**
 * What a person adds to an open gate's plan and takes away from it, as data; everything may be left out. Where something is both removed and added, it is there
 * afterwards. What is added that is there, or removed that is not, is no error: the same edit may come twice.
 */
export const planEditShape = v.strictObject({
  tcp: portEdit, udp: portEdit, exclude: networkEdit, excludeSources: networkEdit, servers: networkEdit, sources: networkEdit,
  /** `every`: none is chosen any more, and so every one concerned; what is added comes after that. */
  interfaces: textEdit, users: idEdit, groups: idEdit, cgroups: textEdit,
  /** Absent: as it is. */
  scope: v.optional(scopeShape),
  /** What of UDP is refused; what is refused no longer is carried. */
  refuse: portEdit,
  /** TCP ports sent to a proxy, and such that go to their servers again. */
  send: v.optional(v.strictObject({ add: v.optional(v.pipe(v.array(handOverShape), v.maxLength(64)), []), remove: ports }), {}),
  udpIdle: v.optional(v.strictObject({ dns: seconds, quic: seconds, other: seconds }), {}),
  /** Absent: as it is. */
  hold: v.optional(v.boolean()),
})
export type PlanEdit = v.InferOutput<typeof planEditShape>
/** The same with what is left out left out. */
export type PlanEditWish = {
  readonly [Key in Transport]?: { readonly add?: readonly PortRange[]; readonly remove?: readonly PortRange[] }
} & { readonly [Key in NetworkList]?: { readonly add?: readonly string[]; readonly remove?: readonly string[] } } & {
  readonly [Key in NameList]?: { readonly add?: InterceptionPlan[Key]; readonly remove?: InterceptionPlan[Key]; readonly every?: boolean }
} & {
  readonly scope?: readonly Scope[]
  readonly refuse?: { readonly add?: readonly PortRange[]; readonly remove?: readonly PortRange[] }
  readonly send?: { readonly add?: readonly HandOver[]; readonly remove?: readonly PortRange[] }
  readonly udpIdle?: Partial<UdpIdle>
  readonly hold?: boolean
}

/**
 * @throws Failure `bad-plan` for a wrong shape.
 */
export function parsePlanEdit(input: unknown): PlanEdit {
  const shaped = v.safeParse(planEditShape, input)
  if (shaped.success) return shaped.output
  const issue = shaped.issues[0]
  throw new Failure('bad-plan', `The change is malformed at ${v.getDotPath(issue) ?? 'its root'}`, issue.message)
}

/** One of each, in a sentence. */
export const nameWords: Readonly<Record<NameList, string>> = { interfaces: 'interface', users: 'user', groups: 'group', cgroups: 'cgroup' }

/**
 * The plan an edit leads to. Pure: window and command show what it gives before they ask for it, and the helper validates the result as any plan.
 * A port that is taken away is neither refused nor sent to a proxy any more.
 * @throws Failure `nothing-to-intercept` when no port is left, or nobody, `bad-ports`, `bad-cidr`, `bad-plan` for a proxy that is none.
 */
export function editPlan(plan: InterceptionPlan, edit: PlanEdit): InterceptionPlan {
  const gone = (transport: Transport): PortRange[] => withoutPorts(edit[transport].remove, edit[transport].add)
  const portsOf = (transport: Transport): PortRange[] => [...withoutPorts(plan[transport], edit[transport].remove), ...edit[transport].add]
  const networksOf = (list: NetworkList): string[] => {
    const { add, remove } = edit[list]
    return [...(remove.length === 0 ? plan[list] : withoutNetworks(plan[list], remove)), ...add]
  }
  const { refuse, send, udpIdle } = edit
  /** Ids or texts, likewise. */
  const namesOf = <Name>(now: readonly Name[], { add, remove, every }: { readonly add: readonly Name[]; readonly remove: readonly Name[]; readonly every: boolean }): Name[] => [...(every ? [] : now.filter((each) => !remove.includes(each))), ...add]
  const named = { interfaces: namesOf(plan.interfaces, edit.interfaces), users: namesOf(plan.users, edit.users), groups: namesOf(plan.groups, edit.groups), cgroups: namesOf(plan.cgroups, edit.cgroups) }
  // An empty list means every one; a person who takes the last one away does not ask for everything.
  for (const list of nameLists) {
    if (plan[list].length > 0 && named[list].length === 0 && !edit[list].every) throw new Failure('nothing-to-intercept', `No ${nameWords[list]} would be left: choose another one as well, or every one by *`)
  }
  for (const list of ['servers', 'sources'] as const) {
    if (plan[list].length > 0 && networksOf(list).length === 0) throw new Failure('nothing-to-intercept', `No ${list === 'servers' ? 'server' : 'client'} would be left, so there would be nothing to intercept`)
  }
  return parsePlan({
    ...plan,
    refuse: [...withoutPorts(plan.refuse, [...gone('udp'), ...refuse.remove]), ...refuse.add],
    handOver: [...withoutHandOvers(plan.handOver, [...gone('tcp'), ...send.remove, ...send.add.flatMap(({ ports: sent }) => sent)]), ...send.add],
    udpIdle: { dns: udpIdle.dns ?? plan.udpIdle.dns, quic: udpIdle.quic ?? plan.udpIdle.quic, other: udpIdle.other ?? plan.udpIdle.other },
    hold: edit.hold ?? plan.hold,
    ...named,
    scope: edit.scope ?? plan.scope,
    tcp: portsOf('tcp'),
    udp: portsOf('udp'),
    ...Object.fromEntries(networkLists.map((list) => [list, networksOf(list)])),
  })
}
