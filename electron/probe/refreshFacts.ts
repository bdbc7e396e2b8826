import type { MachineFacts } from '#core/rules/machineFacts.ts'
import { listCgroups } from './cgroups.ts'
import { listInterfaces } from './interfaces.ts'

/** What comes and goes (interfaces, cgroups) looked up anew; tools and kernel are as they were when the gate was opened. */
export async function refreshFacts(facts: MachineFacts): Promise<MachineFacts> {
  const [interfaces, cgroups] = await Promise.all([listInterfaces(), listCgroups()])
  return { ...facts, interfaces, ...(cgroups?.paths === undefined ? {} : { cgroups: cgroups.paths }) }
}
