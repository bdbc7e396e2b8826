import type { GateState } from '#core/contract/bridge.ts'

/** A listener for the gate's states that says each warning once, and once more when it comes anew: a state bears all there were until then, the last one at the end. */
export function newWarnings(say: (warning: string) => void): (state: Pick<GateState, 'warnings'>) => void {
  let before: readonly string[] = []
  return ({ warnings }) => {
    for (const [index, warning] of warnings.entries()) if (!before.includes(warning) || (index === warnings.length - 1 && before.at(-1) !== warning)) say(warning)
    before = warnings
  }
}
