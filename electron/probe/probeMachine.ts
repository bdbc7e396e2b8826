import { existsSync } from 'node:fs'

import type { BackendChoice } from '#core/plan/plan.ts'
import { backendPreference as backends } from '#core/rules/chooseBackend.ts'
import type { MachineFacts, ToolFacts } from '#core/rules/machineFacts.ts'
import { listCgroups } from './cgroups.ts'
import { listInterfaces } from './interfaces.ts'
import { isLenientLo } from './lenientLo.ts'
import { tryBackend } from './tryBackend.ts'

/**
 * The facts of this machine and network namespace that decide which rules are compiled and by which tool they are loaded. Changes nothing: backends are tried in
 * namespaces of their own. `privileged`: root is
 * looking, so what is refused is refused for good. `choice`: only as many backends are tried as it takes to know which one it means here.
 */
export async function probeMachine({ privileged, choice }: { readonly privileged: boolean; readonly choice?: BackendChoice }): Promise<MachineFacts> {
  const [interfaces, cgroups, tools] = await Promise.all([listInterfaces(), listCgroups(), choice === undefined ? Promise.all(backends.map((backend) => tryBackend(backend, privileged))) : tryUntilFound(choice, privileged)])
  return {
    tools,
    ipv6: existsSync('/proc/net/if_inet6'),
    interfaces,
    lenientLo: isLenientLo(),
    ...(cgroups === undefined ? {} : { cgroupPrefix: cgroups.prefix }),
    ...(cgroups?.paths === undefined ? {} : { cgroups: cgroups.paths }),
  }
}

/** The first that can all, as `chooseBackend` prefers them: what the others can does not matter then. */
async function tryUntilFound(choice: BackendChoice, privileged: boolean): Promise<ToolFacts[]> {
  const tools: ToolFacts[] = []
  for (const backend of choice === 'auto' ? backends : [choice]) {
    const tool = await tryBackend(backend, privileged, { quick: true })
    tools.push(tool)
    if (tool.usable && tool.redirectsBecause === undefined) break
  }
  return tools
}
