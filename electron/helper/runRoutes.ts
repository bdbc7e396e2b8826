import { Failure } from '#core/contract/failure.ts'
import { renderRoutes } from '#core/rules/renderRoutes.ts'
import type { RuleSet } from '#core/rules/ruleSet.ts'

import { requireTool, runTool } from './runTool.ts'

type Routed = Pick<RuleSet, 'families' | 'routing'>

/** The ip rules and routes a rule set asks for, by one process a family. Fails with `routes-failed`; then some may be there. */
export async function applyRoutes(routed: Routed, signal: AbortSignal): Promise<void> {
  const ip = requireTool('ip')
  for (const [flag, lines] of batches(renderRoutes(routed).apply)) {
    const result = await runTool(ip, [flag, '-batch', '-'], { input: lines, signal })
    signal.throwIfAborted()
    if (result.exitCode !== 0) throw new Failure('routes-failed', `ip ${flag} refused the rules and routes`, result.stderr.slice(0, 2000))
  }
}

/** Takes them back, each also where another one is gone already. */
export async function revertRoutes(routed: Routed): Promise<void> {
  const ip = requireTool('ip')
  for (const [flag, lines] of batches(renderRoutes(routed).revert)) await runTool(ip, [flag, '-force', '-batch', '-'], { input: lines })
}

/** Lines for `ip -batch` by family, whose flag stands on the command line. */
function batches(commands: readonly (readonly string[])[]): [string, string][] {
  const byFlag = new Map<string, string>()
  for (const [flag = '', ...words] of commands) byFlag.set(flag, `${byFlag.get(flag) ?? ''}${words.join(' ')}\n`)
  return [...byFlag]
}
