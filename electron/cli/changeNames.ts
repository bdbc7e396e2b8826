import type { FoundContainers } from '#core/contract/controlProtocol.ts'
import type { NameList, PlanEdit } from '#core/plan/editPlan.ts'
import { parseCgroup, parseInterface } from '#core/plan/parseNames.ts'
import { findGroup, findUser } from '#probe/accounts.ts'
import { containerCgroups, findCgroup, findContainerCgroups, findUnitCgroups, unitCgroups } from '#probe/findCgroup.ts'
import type { Options, OptionShapes } from './parseOptions.ts'
import { listed } from './planOptions.ts'

const many = { type: 'string', multiple: true } as const

/** Whom an open gate concerns: the words that `capture` has, each with one that takes away. */
export const nameShapes = {
  iface: { ...many, short: 'i' },
  'remove-iface': many,
  user: many,
  'remove-user': many,
  group: many,
  'remove-group': many,
  cgroup: many,
  'remove-cgroup': many,
  unit: many,
  'remove-unit': many,
  container: many,
  'remove-container': many,
} as const satisfies OptionShapes
type Given = Options<typeof nameShapes>

/** Chooses every one again. It is no name of any of them. */
const every = '*'

/** What can be told without the gate, and what was found by the containers' names. Failures: `bad-interface`, `bad-user`, `bad-cgroup`, `unknown-cgroup`. */
export async function nameEdits(values: Given): Promise<{ readonly names: Pick<PlanEdit, NameList>; readonly containers: FoundContainers }> {
  const edit = async <Name>(name: 'iface' | 'user' | 'group' | 'cgroup', find: (word: string) => Name | Promise<Name>, gone = find): Promise<{ add: Name[]; remove: Name[]; every: boolean }> => {
    const words = listed(values[name])
    const [add, remove] = await Promise.all([Promise.all(words.filter((word) => word !== every).map(find)), Promise.all(listed(values[`remove-${name}`]).map(gone))])
    return { add, remove, every: words.includes(every) }
  }
  const [interfaces, users, groups, cgroups, units, containers] = await Promise.all([
    edit('iface', parseInterface),
    edit('user', findUser),
    edit('group', findGroup),
    // What is taken away may have ended.
    edit('cgroup', findCgroup, parseCgroup),
    Promise.all(listed(values.unit).map(findUnitCgroups)),
    Promise.all(listed(values.container).map(async (name) => ({ name, cgroups: [...(await findContainerCgroups(name))] }))),
  ])
  return { names: { interfaces, users, groups, cgroups: { ...cgroups, add: [...cgroups.add, ...units.flat(), ...containers.flatMap((each) => each.cgroups)] } }, containers }
}

/**
 * The cgroups to take away of units and containers by name: among those that are chosen, since they may run no longer. @param chosen the gate's
 * Fails with `unknown-cgroup`: a container by a name that only its daemon knows, and it does not.
 */
export async function cgroupsGone(values: Given, chosen: readonly string[]): Promise<string[]> {
  const containers = listed(values['remove-container']).map(async (name) => {
    const there = containerCgroups(chosen, name)
    return there.length > 0 ? there : findContainerCgroups(name)
  })
  return [...listed(values['remove-unit']).flatMap((name) => unitCgroups(chosen, name)), ...(await Promise.all(containers)).flat()]
}
