import type { ChoiceField, ChoiceProblem, GateChoice, Preview } from '#core/contract/bridge.ts'
import { Failure } from '#core/contract/failure.ts'
import { describePlan } from '#core/plan/describePlan.ts'
import { planOfChoice, programWord, wordsOf, type ChosenNames } from '#core/plan/gateChoice.ts'
import type { InterceptionPlan } from '#core/plan/plan.ts'
import { chooseBackend } from '#core/rules/chooseBackend.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import { describeOpening } from '#core/rules/describeOpening.ts'
import type { MachineFacts } from '#core/rules/machineFacts.ts'
import { differencesOf } from '#core/rules/backendDifferences.ts'
import { previewRules } from '#core/rules/previewRules.ts'
import { findGroup, findUser } from '#probe/accounts.ts'
import type { ChosenContainer } from '#probe/containerWatch.ts'
import { digestRules } from '#probe/digestRules.ts'
import { findCgroup, findContainerCgroups, findUnitCgroups } from '#probe/findCgroup.ts'

/** A name this machine does not know, and the field it stands in. */
class UnknownName extends Error {
  readonly problem: ChoiceProblem
  readonly failure: Failure
  constructor(field: ChoiceField, failure: Failure) {
    super(failure.message)
    this.problem = { field, message: failure.message }
    this.failure = failure
  }
}

/** What a person chose in the window, as a plan, and what names of containers led to. Throws Failure as makePlan does, `bad-user` and `unknown-cgroup` for a name nobody has. */
export async function planChoice(choice: GateChoice): Promise<{ readonly plan: InterceptionPlan; readonly containers: readonly ChosenContainer[] }> {
  try {
    const names = await findNames(choice)
    const { containers, ...found } = names
    return { plan: planOfChoice(choice, found), containers }
  } catch (error) {
    throw error instanceof UnknownName ? error.failure : error
  }
}

async function findNames(choice: GateChoice): Promise<ChosenNames & { readonly containers: readonly ChosenContainer[] }> {
  const each = async <Found>(field: ChoiceField, text: string, find: (word: string) => Promise<Found>): Promise<Found[]> => {
    const found: Found[] = []
    for (const word of wordsOf(text)) {
      try {
        found.push(await find(word))
      } catch (error) {
        throw error instanceof Failure ? new UnknownName(field, error) : error
      }
    }
    return found
  }
  const containers: ChosenContainer[] = []
  const cgroups = await each('programs', choice.programs, async (word) => {
    const { kind, name } = programWord(word)
    if (kind !== 'container') return kind === 'cgroup' ? [await findCgroup(name)] : findUnitCgroups(name)
    const found = await findContainerCgroups(name)
    containers.push({ name, cgroups: found })
    return found
  })
  return { containers, users: await each('users', choice.users, findUser), groups: await each('groups', choice.groups, findGroup), cgroups: cgroups.flat() }
}

/** What opening the gate with this choice would do on the machine of these facts; does nothing. */
export async function previewChoice(choice: GateChoice, probe: () => Promise<MachineFacts>): Promise<Preview | { readonly problem: ChoiceProblem }> {
  let names: ChosenNames
  try {
    const { containers: _containers, ...found } = await findNames(choice)
    names = found
  } catch (error) {
    if (error instanceof UnknownName) return { problem: error.problem }
    throw error
  }
  const plan = planOfChoice(choice, names)
  const netns = choice.netns.trim()
  if (netns !== '') return { plan, backend: plan.backend, description: [`All this happens in the network namespace ${netns}.`, ...describePlan(plan)], texts: [], differences: plan.backend === 'auto' ? [] : differencesOf(plan.backend, plan), digest: '' }
  const facts = await probe()
  const backend = chooseBackend(plan, facts)
  const rules = compileRules(plan, facts)
  return { plan, backend, description: describeOpening(plan, facts), texts: previewRules(rules, plan.relayPort, backend), differences: differencesOf(backend, plan), digest: digestRules(rules) }
}
