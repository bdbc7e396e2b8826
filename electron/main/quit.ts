import type { GateState } from '#core/contract/bridge.ts'

export type QuitChoice = 'close' | 'finish' | 'stay'

export interface QuitQuestion {
  readonly message: string
  readonly detail: string
  readonly buttons: readonly string[]
  /** What each button means, in the same order. */
  readonly choices: readonly QuitChoice[]
}

/** What to ask before quitting with this gate; undefined: nothing would be lost, no question. `tray`: the app can go on without a window. */
export function quitQuestion(gate: GateState, tray: boolean): QuitQuestion | undefined {
  if (gate.phase === 'closed') return undefined
  const flows = gate.active === 1 ? '1 flow is' : `${gate.active} flows are`
  const cut = gate.active === 0 ? 'Close and Quit' : `Close at Once (cuts ${gate.active})`
  return {
    message: gate.active === 0 ? 'The gate is open.' : `${flows} relayed through the gate.`,
    detail:
      gate.active === 0
        ? 'Quitting closes it.'
        : `Closing at once resets them. Letting them finish takes no new flows and quits when the last has ended${tray ? '; Sluice stays in the tray until then' : ''}.`,
    buttons: gate.active === 0 ? [cut, 'Cancel'] : [cut, 'Let Them Finish', 'Cancel'],
    choices: gate.active === 0 ? ['close', 'stay'] : ['close', 'finish', 'stay'],
  }
}
