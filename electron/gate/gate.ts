import { Failure, toFailureReport } from '#core/contract/failure.ts'
import type { FailureReport } from '#core/contract/failure.ts'
import type { GateState } from '#core/contract/bridge.ts'
import type { HelperEvent } from '#core/contract/helperProtocol.ts'
import { editPlan } from '#core/plan/editPlan.ts'
import type { PlanEdit } from '#core/plan/editPlan.ts'
import { moveCgroups } from '#core/plan/moveCgroups.ts'
import type { InterceptionPlan } from '#core/plan/plan.ts'
import { comparePlans, isSamePlan } from '#core/plan/planDifference.ts'
import type { PlanDifference } from '#core/plan/planDifference.ts'
import { overdue, timedWithin, timePorts } from '#core/plan/timedPorts.ts'
import type { MachineFacts } from '#core/rules/machineFacts.ts'
import type { HelperConnection } from '#elevate/helperConnection.ts'

import { ActionRecord } from './actionRecord.ts'
import { GateEndings } from './gateEndings.ts'

export interface GateOptions {
  readonly startHelper: (options: { readonly signal: AbortSignal; readonly netns?: string }) => Promise<HelperConnection>
  /**
   * The digest of the rules for a plan on this machine, as shown to the person; the helper compares. `facts`: as the helper sees another network
   * namespace, where nobody else can look.
   */
  readonly digest: (plan: InterceptionPlan, facts?: MachineFacts) => Promise<string>
  /** Wall clock, milliseconds. */
  readonly now?: () => number
}
export interface OpenChoice {
  /** An existing session folder of the person's, absolute. */
  readonly folder: string
  readonly payload: boolean
  /** null: no limit. */
  readonly maxBytesPerFlow: number | null
  readonly maxBytes: number | null
  /** What happens at `maxBytes`: the oldest part of the record goes (true, the default), or no more payload is recorded. */
  readonly ring?: boolean
  readonly segmentBytes?: number
  readonly threads: number
  /** Flows at once; left out: the helper's usual number. */
  readonly maxFlows?: number
  /** Another network namespace to work in: its name, or a process in it. */
  readonly netns?: string
}

const warningLimit = 20
/** More than every bounded step of closing together, milliseconds. */
const patience = 20_000
const nothing = { active: 0, total: 0, bytes: 0, recording: 'on', warnings: [] } as const

/**
 * The gate as window and command know it: a state machine over one helper at a time. A helper is started for each opening and ends with it, so that no
 * process of root's waits about. Whatever goes wrong ends in phase `closed` with `failure`; the helper, or failing it its guard, has then taken everything back.
 */
export class Gate {
  readonly #options: GateOptions
  readonly #listeners = new Set<(state: GateState) => void>()
  #state: GateState = { phase: 'closed', ...nothing }
  #opening: AbortController | undefined
  #helper: HelperConnection | undefined
  /** Settles when the gate that is open, opening or closing now is closed. */
  #closed: Promise<void> = Promise.resolve()
  #resolveClosed: () => void = () => undefined
  #disposed = false
  #actions: ActionRecord | undefined
  readonly #endings: GateEndings
  /** Changes one after the other: each starts from the plan the one before has left. */
  #turns: Promise<unknown> = Promise.resolve()
  /** Of the other network namespace the helper works in, as they were when the gate was opened. */
  #factsThere: MachineFacts | undefined

  constructor(options: GateOptions) {
    this.#options = options
    this.#endings = new GateEndings(
      { closeGate: () => void this.drain().catch(() => undefined), takeAway: () => this.#takeAway(), changed: (ends) => this.#tellEnds(ends) },
      options.now ?? Date.now,
    )
  }

  state(): GateState {
    return this.#state
  }

  /** Called with each new state; the result ends that. */
  onState(listener: (state: GateState) => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  /** Resolves when new flows are taken. Rejects with a Failure (also in the state): `already-open`, `cancelled` after `close`, and whatever elevation and helper refuse with. */
  async open(plan: InterceptionPlan, choice: OpenChoice): Promise<void> {
    if (this.#disposed) throw new Failure('not-open', 'the gate was put away')
    if (this.#state.phase !== 'closed') throw new Failure('already-open', 'the gate is open already')
    const opening = new AbortController()
    this.#opening = opening
    this.#closed = new Promise((resolve) => (this.#resolveClosed = resolve))
    this.#set({ phase: 'opening', step: 'asking for permission', plan, ...nothing })
    let helper: HelperConnection | undefined
    try {
      const { threads, maxFlows, netns, ...capture } = choice
      this.#factsThere = undefined
      // Before anybody is asked for a password, where that can be.
      let digest = netns === undefined ? await this.#options.digest(plan) : undefined
      throwIfGivenUp(opening.signal)
      helper = await this.#options.startHelper({ signal: opening.signal, ...(netns === undefined ? {} : { netns }) })
      throwIfGivenUp(opening.signal)
      this.#attach(helper)
      this.#actions = new ActionRecord(choice.folder)
      if (netns !== undefined) this.#factsThere = await helper.request('facts', {})
      digest ??= await this.#options.digest(plan, this.#factsThere)
      throwIfGivenUp(opening.signal)
      // `close` while this is pending is sent after it on the same channel, so the helper gives up and this rejects.
      const result = await helper.request('open', { plan, digest, capture, threads, ...(maxFlows === undefined ? {} : { maxFlows }) })
      throwIfGivenUp(opening.signal)
      const { step: _step, ...rest } = this.#state
      this.#set({ ...rest, phase: 'open', backend: result.backend, openedAt: (this.#options.now ?? Date.now)(), recording: choice.payload ? this.#state.recording : 'off' })
      this.#opening = undefined
    } catch (error) {
      const failure = opening.signal.aborted ? new Failure('cancelled', 'opening was given up') : error
      this.#opening = undefined
      // Ends a helper that is half way, and one whose "open" arrived after the giving up: its end takes everything back.
      if (helper !== undefined) await within(patience, helper.end())
      await this.#endActions()
      this.#finish(toFailureReport(failure))
      throw failure
    }
  }

  /** Other choices while open; nothing is cut. Rejects with a Failure, and everything is as it was: `not-open`, `cannot-change`, and whatever the helper refuses with. */
  change(plan: InterceptionPlan): Promise<void> {
    return this.#inTurn(async () => {
      await this.#changeTo(plan)
      this.#endings.setPorts(timedWithin(this.#endings.ports, plan))
    })
  }

  /**
   * As `change`, by what is added and taken away, from the plan as it is when the turn comes. With `duration` (milliseconds) the ports added go again by
   * themselves; those that were there without an end stay. Where these are the last ports, the gate drains when they go. Resolves with what became different.
   */
  edit(edit: PlanEdit, { duration }: { readonly duration?: number | undefined } = {}): Promise<PlanDifference> {
    return this.#inTurn(() => this.#editNow(edit, duration))
  }

  /**
   * A chosen container was made anew: these cgroups of the plan's are those now. Says so as a warning. Rejects as `change` does; a plan without any of `from` stays as it is (somebody
   * chose otherwise meanwhile).
   */
  moveCgroups(name: string, from: readonly string[], to: readonly string[]): Promise<void> {
    return this.#inTurn(async () => {
      const { plan } = this.#state
      const moved = plan === undefined ? undefined : moveCgroups(plan, from, to)
      if (moved === undefined || moved === plan) return
      await this.#changeTo(moved)
      this.#warn(`Container ${name} was made anew and is another one: it is taken from now on, what it opened before that went direct.`)
    })
  }

  /** Drains by itself after so many milliseconds; null: no longer. Fails with `not-open` unless open. */
  closeAfter(duration: number | null): void {
    if (this.#state.phase !== 'open') throw new Failure('not-open', 'the gate is not open')
    this.#endings.setGate(duration)
  }

  /** Back from draining: new flows are taken again. Rejects with `not-open` when it is too late. */
  async resume(): Promise<void> {
    const helper = this.#helper
    if (this.#state.phase === 'open') return
    if (this.#state.phase !== 'draining' || helper === undefined) throw new Failure('not-open', 'the gate is not draining')
    await helper.request('resume', {})
    if (this.#helper !== helper || this.state().phase !== 'draining') return
    const { step: _step, draining: _draining, ...rest } = this.#state
    this.#set({ ...rest, phase: 'open' })
    // What would have gone meanwhile goes now.
    this.#endings.look()
  }

  /** Takes no new flow; resolves when the relayed ones have ended and everything is taken back. While opening: gives up. */
  async drain(): Promise<void> {
    const { phase } = this.#state
    if (phase === 'closed') return
    if (phase === 'opening') return this.close()
    const closed = this.#closed
    if (phase === 'open') {
      this.#set({ ...this.#state, phase: 'draining', step: 'letting the open flows run to their end', draining: { since: (this.#options.now ?? Date.now)(), of: this.#state.active } })
      // A refusal means that it is closing anyway; the event or the helper's end says how.
      await this.#helper?.request('drain', {}).catch(() => undefined)
    }
    return closed
  }

  /** At once: relayed flows are reset. Resolves when everything is taken back. */
  async close(): Promise<void> {
    const { phase } = this.#state
    if (phase === 'closed') return
    const closed = this.#closed
    if (phase === 'opening') {
      if (this.#opening?.signal.aborted === true) return closed
      this.#set({ ...this.#state, step: 'giving up' })
      this.#opening?.abort()
    } else if (phase !== 'closing') this.#set({ ...this.#state, phase: 'closing', step: 'closing' })
    const helper = this.#helper
    helper?.request('close', {}).catch(() => undefined)
    // A frozen helper must not hold this up for ever; its guard takes everything back after seconds.
    if (!(await within(patience, closed)) && this.#helper === helper && helper !== undefined && this.#state.phase === 'closing') {
      void helper.end()
      this.#finish({ code: 'helper-died', message: 'the helper does not answer; its guard takes the rules back' })
    }
  }

  /** For the app's end: closes at once and takes no further orders. */
  async dispose(): Promise<void> {
    this.#disposed = true
    await this.close()
    this.#listeners.clear()
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turns.then(work)
    this.#turns = turn.catch(() => undefined)
    return turn
  }

  async #changeTo(plan: InterceptionPlan): Promise<void> {
    const helper = this.#helper
    if (this.#state.phase !== 'open' || helper === undefined) throw new Failure('not-open', 'the gate is not open')
    await helper.request('change', { plan, digest: await this.#options.digest(plan, await this.#refreshThere(helper)) })
    if (this.#helper === helper) this.#set({ ...this.#state, plan })
  }

  async #editNow(edit: PlanEdit, duration?: number): Promise<PlanDifference> {
    const { plan: before, phase } = this.#state
    if (before === undefined || phase !== 'open') throw new Failure('not-open', phase === 'draining' ? 'the gate is draining' : 'the gate is not open')
    const after = editPlan(before, edit)
    const difference = comparePlans(before, after)
    if (!isSamePlan(difference)) await this.#changeTo(after)
    this.#endings.setPorts(timedWithin(timePorts(this.#endings.ports, before, edit, duration === undefined ? undefined : performance.now() + duration), after))
    return difference
  }

  /** Of ports whose time is up. Resolves false when it has to be tried again. */
  async #takeAway(): Promise<boolean> {
    try {
      // Asked when the turn has come: a change before it may have given them more time.
      await this.#inTurn(() => this.#editNow(overdue(this.#endings.ports, performance.now())))
      return true
    } catch (error) {
      const { code, message } = toFailureReport(error)
      // While draining nothing new is taken anyway; resuming looks again.
      if (code === 'not-open' || this.#state.phase !== 'open') return true
      if (code === 'nothing-to-intercept') void this.drain().catch(() => undefined)
      else this.#warn(`Ports whose time is up could not be taken away: ${message}`)
      return code === 'nothing-to-intercept'
    }
  }

  #tellEnds(ends: GateState['ends']): void {
    const { ends: _ends, ...rest } = this.#state
    this.#set(ends === undefined ? rest : { ...rest, ends })
  }

  #warn(message: string): void {
    this.#set({ ...this.#state, warnings: [...this.#state.warnings.filter((text) => text !== message), message].slice(-warningLimit) })
  }

  /** What comes and goes there looked up anew; tools and kernel are as they were. */
  async #refreshThere(helper: HelperConnection): Promise<MachineFacts | undefined> {
    if (this.#factsThere === undefined) return undefined
    const { interfaces, cgroups } = await helper.request('facts', {})
    return { ...this.#factsThere, interfaces, ...(cgroups === undefined ? {} : { cgroups }) }
  }

  #attach(helper: HelperConnection): void {
    this.#helper = helper
    helper.onEvent((event) => this.#helper === helper && this.#hear(event, helper))
    helper.onEnd(({ stderr }) => {
      // While opening, the pending request says so.
      if (this.#helper !== helper || this.#state.phase === 'opening') return
      this.#finish({ code: 'helper-died', message: 'the helper ended unexpectedly; its guard takes the rules back', ...(stderr === '' ? {} : { detail: stderr }) })
    })
  }

  #hear(event: HelperEvent, helper: HelperConnection): void {
    const state = this.#state
    switch (event.event) {
      case 'step':
        if (state.phase !== 'open') this.#set({ ...state, step: event.text })
        return
      case 'flows':
        return this.#set({
          ...state, active: event.active, total: event.total, bytes: event.bytes,
          // One whose SYN came just before is counted a moment later.
          ...(state.draining === undefined ? {} : { draining: { ...state.draining, of: Math.max(state.draining.of, event.active) } }),
        })
      case 'recording':
        return this.#set({ ...state, recording: event.state })
      case 'warning':
        return this.#warn(event.message)
      case 'action':
        return this.#actions?.write(event.text)
      case 'closed': {
        if (state.phase === 'opening') return
        // The helper's work is done; it ends before we say so, that the next opening finds the lock free.
        this.#helper = undefined
        const { failure } = event
        void within(patience, helper.end()).then(() => this.#endActions()).then(() => this.#finish(failure === undefined ? undefined : reportOf(failure)))
      }
    }
  }

  async #endActions(): Promise<void> {
    await this.#actions?.end()
    this.#actions = undefined
  }

  #finish(failure: FailureReport | undefined): void {
    this.#helper = undefined
    this.#endings.clear()
    void this.#endActions()
    const { active: _active, step: _step, openedAt: _openedAt, draining: _draining, failure: _failure, ends: _ends, ...kept } = this.#state
    this.#set({ ...kept, phase: 'closed', active: 0, ...(failure === undefined ? {} : { failure }) })
    this.#resolveClosed()
  }

  #set(state: GateState): void {
    this.#state = state
    for (const listener of this.#listeners) listener(state)
  }
}

/** True when it settled in time. */
function within(milliseconds: number, work: Promise<unknown>): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), milliseconds)
    const settle = (): void => {
      clearTimeout(timer)
      resolve(true)
    }
    work.then(settle, settle)
  })
}

function throwIfGivenUp(signal: AbortSignal): void {
  if (signal.aborted) throw new Failure('cancelled', 'opening was given up')
}

function reportOf(failure: { code: FailureReport['code']; message: string; detail?: string | undefined }): FailureReport {
  return failure.detail === undefined ? { code: failure.code, message: failure.message } : { code: failure.code, message: failure.message, detail: failure.detail }
}
