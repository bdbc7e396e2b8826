import type { MachineFacts } from '#core/rules/machineFacts.ts'
import { probeMachine } from '#probe/probeMachine.ts'

/** Probing loads scratch rules and takes a moment; a person types faster than tools or interfaces come and go. */
const freshFor = 5000
let last: { readonly at: number; readonly facts: Promise<MachineFacts> } | undefined

/** Facts of this machine for previews, at most some seconds old. The helper probes anew, as root, for what it applies. */
export function machineFacts(): Promise<MachineFacts> {
  const now = performance.now()
  if (last === undefined || now - last.at > freshFor) {
    const facts = probeMachine({ privileged: process.getuid?.() === 0 })
    last = { at: now, facts }
    facts.catch(() => (last = undefined))
  }
  return last.facts
}
