import type { GateState } from '#core/contract/bridge.ts'

/** A listener for the gate's states that says each warning once: a state bears all there were until then. */
export function newWarnings(say: (warning: string) => void): (state: Pick<GateState, 'warnings'>) => void {
  let before: readonly string[] = []
  return ({ warnings }) => {
    for (const warning of warnings) if (!before.includes(warning)) say(warning)
    before = warnings
  }
}
