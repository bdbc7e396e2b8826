import type { GateChoice, Preview } from '#core/contract/bridge.ts'
import { makePlan } from '#core/plan/makePlan.ts'
import type { InterceptionPlan, Scope } from '#core/plan/plan.ts'
import { chooseBackend } from '#core/rules/chooseBackend.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import { describeOpening } from '#core/rules/describeOpening.ts'
import type { MachineFacts } from '#core/rules/machineFacts.ts'
import { previewRules } from '#core/rules/previewRules.ts'
import { digestRules } from '#probe/digestRules.ts'

const words = (text: string): string[] => text.split(/[\s,]+/).filter((word) => word !== '')

/** What a person chose in the window, as a plan. Throws Failure as makePlan does. */
export function planChoice(choice: GateChoice): InterceptionPlan {
  const scope: Scope[] = []
  if (choice.scope.local) scope.push('local')
  if (choice.scope.forwarded) scope.push('forwarded')
  return makePlan({ tcp: choice.tcp, scope, interfaces: words(choice.interfaces), exclude: words(choice.exclude), backend: choice.backend })
}

/** What opening the gate with this choice would do on the machine of these facts; does nothing. */
export function previewChoice(choice: GateChoice, facts: MachineFacts): Preview {
  const plan = planChoice(choice)
  const backend = chooseBackend(plan, facts)
  const rules = compileRules(plan, facts)
  return {
    plan,
    backend,
    description: describeOpening(plan, facts),
    texts: previewRules(rules, plan.relayPort, backend),
    digest: digestRules(rules),
  }
}
