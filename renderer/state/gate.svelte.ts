import type { Client } from '#ui/bridge/client.ts'
import type { GateChoice, GateState } from '#core/contract/bridge.ts'
import { Failure, toFailureReport, type FailureReport } from '#core/contract/failure.ts'
import { failureAdvice } from '#core/contract/failureAdvice.ts'
import { formatPortWords } from '#core/plan/formatPortWords.ts'
import type { InterceptionPlan } from '#core/plan/plan.ts'
import { plural } from '#ui/lib/format.ts'

/** What the control shows; each has a shape, a word and a colour of its own. */
export type GateFace = 'closed' | 'opening' | 'open' | 'draining' | 'closing' | 'trouble'

const words: Record<GateFace, string> = {
  closed: 'Closed',
  opening: 'Opening',
  open: 'Open',
  draining: 'Draining',
  closing: 'Closing',
  trouble: 'Trouble',
}
const untouched: GateState = { phase: 'closed', active: 0, total: 0, bytes: 0, recording: 'off', warnings: [] }

export class GateStore {
  state = $state.raw<GateState>(untouched)
  /** Why the last wish was refused, when main said so in its answer. */
  refusal = $state.raw<FailureReport | null>(null)
  /** A wish is on its way to main. */
  asking = $state(false)
  readonly #client: Client
  readonly #onOpening: () => void

  constructor(client: Client, onOpening: () => void = () => undefined) {
    this.#client = client
    this.#onOpening = onOpening
  }

  readonly failure = $derived(this.state.phase === 'closed' ? (this.refusal ?? this.state.failure ?? null) : null)
  readonly advice = $derived(this.failure === null ? null : failureAdvice[this.failure.code])
  readonly face: GateFace = $derived(this.failure === null ? this.state.phase : 'trouble')
  readonly word = $derived(words[this.face])
  readonly ports = $derived(this.state.plan === undefined ? '' : formatPortWords(this.state.plan))
  readonly isOpen = $derived(this.state.phase !== 'closed')

  /** One line beside the word. */
  readonly says = $derived.by((): string => {
    const { phase, step, active } = this.state
    switch (this.face) {
      case 'closed':
        return 'Nothing is intercepted'
      case 'trouble':
        return this.failure?.message ?? ''
      case 'opening':
      case 'closing':
        return step === undefined ? (phase === 'opening' ? 'Asking for permission' : 'Taking the rules back') : capital(step)
      case 'open':
        return this.state.plan === undefined ? '' : portsText(this.state.plan)
      case 'draining':
        return active === 0 ? 'Last flow has ended' : `${plural(active, 'flow')} still running; new ones go direct`
    }
  })

  take(state: GateState): void {
    if (state.phase !== 'closed') this.refusal = null
    this.state = state
  }

  async open(choice: GateChoice): Promise<void> {
    this.refusal = null
    this.#onOpening()
    await this.#ask(() => this.#client.call('openGate', choice))
  }
  /** Other choices; nothing is cut. True when they are in force. */
  async change(choice: GateChoice): Promise<boolean> {
    this.asking = true
    try {
      await this.#client.call('changeGate', choice)
      return true
    } finally {
      this.asking = false
    }
  }
  /** Ports that come or go at once; `seconds`: those added go again after so many. */
  async editPorts(edit: { add?: string; remove?: string; seconds?: number | null }): Promise<void> {
    await this.#client.call('editPorts', { add: '', remove: '', seconds: null, ...edit })
  }
  async closeAfter(seconds: number | null): Promise<void> {
    await this.#client.call('closeAfter', seconds)
  }
  async resume(): Promise<void> {
    await this.#ask(() => this.#client.call('resumeGate', null))
  }
  async drain(): Promise<void> {
    await this.#ask(() => this.#client.call('drainGate', null))
  }
  /** Cuts what is relayed; while opening it cancels. */
  async close(): Promise<void> {
    await this.#ask(() => this.#client.call('closeGate', null))
  }
  /** A person has read it. */
  forget(): void {
    this.refusal = null
    if (this.state.failure !== undefined) {
      const { failure: _read, ...rest } = this.state
      this.state = rest
    }
  }

  async #ask(wish: () => Promise<unknown>): Promise<void> {
    this.asking = true
    try {
      await wish()
    } catch (error) {
      const failure = error instanceof Failure ? error.report() : toFailureReport(error)
      if (failure.code === 'cancelled') return
      if (this.state.phase === 'closed') this.refusal = failure
      else throw error
    } finally {
      this.asking = false
    }
  }
}

/** "TCP 80, 443 · UDP 53". */
function portsText({ tcp, udp }: Pick<InterceptionPlan, 'tcp' | 'udp'>): string {
  return [tcp.length === 0 ? [] : `TCP ${formatPortWords({ tcp, udp: [] })}`, udp.length === 0 ? [] : `UDP ${formatPortWords({ tcp: udp, udp: [] })}`].flat().join(' · ')
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
