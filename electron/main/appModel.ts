import type { BridgeCalls, BridgeEvents, GateChoice, GateState, SessionState } from '#core/contract/bridge.ts'
import { Failure, toFailureReport, type FailureReport } from '#core/contract/failure.ts'
import type { InspectorResults } from '#core/contract/inspectorProtocol.ts'
import { formatPortWords } from '#core/plan/formatPortWords.ts'
import { flowChoice, flowsAreFixed } from '#core/plan/flowChoice.ts'
import { keepIsFixed, keepLimits, keepsSame } from '#core/plan/keepLimits.ts'
import { parsePlanEdit, type PlanEdit } from '#core/plan/editPlan.ts'
import { parsePortWords, type PortWords } from '#core/plan/parsePortWords.ts'
import type { InterceptionPlan } from '#core/plan/plan.ts'
import { commonPorts } from '#core/plan/portSets.ts'
import { moveCgroups } from '#core/plan/moveCgroups.ts'
import { ContainerWatch, type ChosenContainer } from '#probe/containerWatch.ts'

import { planChoice } from './choice.ts'
import { choiceNow, withTimed } from './choiceNow.ts'
import { discardSession, freeFolder, sessionName } from './sessionPlaces.ts'
import { SessionView, type Inspector, type InspectorCall } from './sessionView.ts'
import type { SettingsFile } from './settingsFile.ts'

export interface GateOptions {
  readonly folder: string
  readonly payload: boolean
  readonly maxBytesPerFlow: number | null
  readonly maxBytes: number | null
  readonly threads: number
  readonly netns?: string
}
/** The part of gate/gate.ts the app uses. */
export interface AppGate {
  state(): GateState
  onState(listener: (state: GateState) => void): unknown
  open(plan: InterceptionPlan, options: GateOptions): Promise<unknown>
  change(plan: InterceptionPlan): Promise<unknown>
  moveCgroups(name: string, from: readonly string[], to: readonly string[]): Promise<void>
  edit(edit: PlanEdit, options?: { readonly duration?: number | undefined }): Promise<unknown>
  closeAfter(duration: number | null): void
  resume(): Promise<unknown>
  drain(): Promise<unknown>
  close(): Promise<unknown>
}

export interface AppModelOptions {
  readonly gate: AppGate
  readonly startInspector: () => Inspector
  readonly createSession: (folder: string, facts: { plan: InterceptionPlan; payload: boolean; version: string }) => Promise<unknown>
  /** Lets the person's other programs change the open gate that records into this folder. Never fails. */
  readonly startControl: (folder: string, onContainers: (more: readonly ChosenContainer[]) => void) => Promise<{ close(): void } | undefined>
  readonly settings: SettingsFile
  /** Folder new sessions are made in; made when it is not there. */
  readonly sessionsFolder: () => Promise<string>
  readonly threads: number
  readonly version: string
  readonly emit: <Name extends keyof BridgeEvents>(name: Name, value: BridgeEvents[Name]) => void
  readonly now?: () => Date
}

const mostRecents = 8

/**
 * What the window, the tray and the menus share: the gate, the session on show, the settings. Knows no Electron. The gate comes first:
 * nothing that fails about sessions, indexes or views closes it or keeps it from closing.
 */
export class AppModel {
  readonly #options: AppModelOptions
  readonly #gate: AppGate
  #view: SessionView | undefined
  /** Folder the open gate records into. */
  #recording: string | undefined
  /** What the gate's plan was made from. */
  #choice: GateChoice | undefined
  /** That plan. */
  #made: InterceptionPlan | undefined
  #control: { close(): void } | undefined
  #containers: ContainerWatch | undefined
  #opening = false
  /** One change after the other: each is made from what the one before it left. */
  #changing: Promise<unknown> = Promise.resolve()
  readonly #closings = new Set<() => void>()
  /** Why opening failed before the gate was asked at all. */
  #failure: FailureReport | undefined

  constructor(options: AppModelOptions) {
    this.#options = options
    this.#gate = options.gate
    options.gate.onState(() => {
      if (this.#gate.state().phase === 'closed') this.#ended()
      this.#tellGate()
    })
  }

  gate(): GateState {
    const gate = this.#gate.state()
    const state = gate.phase === 'closed' || this.#choice === undefined || this.#made === undefined ? gate : { ...gate, choice: choiceNow(this.#choice, this.#made, gate) }
    return this.#failure === undefined || state.failure !== undefined ? state : { ...state, failure: this.#failure }
  }
  session(): SessionState | null {
    return this.#view?.state() ?? null
  }
  /** True while there is something that quitting would end. */
  isOpen(): boolean {
    return this.#opening || this.#gate.state().phase !== 'closed'
  }
  /** Folder being recorded into when another session is on show. */
  hiddenRecording(): string | undefined {
    return this.#recording !== undefined && this.#view?.folder !== this.#recording ? this.#recording : undefined
  }

  async openGate(choice: GateChoice): Promise<void> {
    if (this.isOpen()) throw new Failure('already-open', 'the gate is open already; close it before opening it with other choices')
    this.#opening = true
    this.#failure = undefined
    try {
      const { plan, containers } = await planChoice(choice)
      const limits = keepLimits(choice.keep)
      const maxFlows = flowChoice(choice.maxFlows)
      this.changeSettings({ choice })
      const { version, settings } = this.#options
      const folder = freeFolder(await this.#options.sessionsFolder(), sessionName(plan, this.#options.now?.() ?? new Date()))
      await this.#options.createSession(folder, { plan, payload: choice.payload, version })
      try {
        this.#choice = choice
        this.#made = plan
        const netns = choice.netns.trim()
        await this.#gate.open(plan, { folder, payload: choice.payload, ...limits, threads: this.#options.threads, ...(maxFlows === undefined ? {} : { maxFlows }), ...(netns === '' ? {} : { netns }) })
      } catch (error) {
        discardSession(folder)
        throw error
      }
      const ports = formatPortWords(plan)
      this.changeSettings({ recentPorts: [ports, ...settings.settings.recentPorts.filter((other) => other !== ports)].slice(0, mostRecents) })
      this.#recording = folder
      this.#watchContainers(containers)
      void this.#options.startControl(folder, (more) => this.#containers?.add(more)).then((control) => {
        if (this.#recording === folder) this.#control = control
        else control?.close()
      })
      void this.#show(folder, true).catch(() => undefined)
    } catch (error) {
      this.#failure = toFailureReport(error)
      throw error
    } finally {
      this.#opening = false
      if (this.#gate.state().phase === 'closed') this.#ended()
      this.#tellGate()
    }
  }

  /** Other choices for the open gate; what is relayed goes on. Fails with `not-open`, `cannot-change`, and as `openGate` does. */
  async changeGate(choice: GateChoice): Promise<void> {
    const change = this.#changing.then(async () => {
      if (this.#gate.state().phase !== 'open' || this.#choice === undefined) throw new Failure('not-open', 'the gate is not open')
      const { plan: before, ends } = this.#gate.state()
      if (choice.netns.trim() !== this.#choice.netns.trim()) throw new Failure('cannot-change', 'The network namespace cannot be changed while the gate is open')
      if (choice.payload !== this.#choice.payload) throw new Failure('cannot-change', 'Whether payload is kept cannot be changed while the gate is open')
      if (!keepsSame(choice.keep, this.#choice.keep)) throw new Failure('cannot-change', keepIsFixed)
      if (flowChoice(choice.maxFlows) !== flowChoice(this.#choice.maxFlows)) throw new Failure('cannot-change', flowsAreFixed)
      const { plan, containers } = await planChoice(choice)
      const former = { choice: this.#choice, made: this.#made }
      this.#choice = choice
      this.#made = plan
      try {
        // Ports with an end of their own are no part of the choice and keep it.
        await this.#gate.change(withTimed(plan, ends?.ports ?? []))
        this.#watchContainers(containers)
        const kept = before === undefined ? [] : (ends?.ports ?? []).map(({ transport, ports }) => ({ transport, ports: commonPorts(ports, plan[transport]) })).filter(({ ports }) => ports.length > 0)
        // Chosen now, so without an end.
        for (const { transport, ports } of kept) await this.#gate.edit(parsePlanEdit({ [transport]: { add: ports } }))
      } catch (error) {
        this.#choice = former.choice
        this.#made = former.made
        throw error
      }
    })
    this.#changing = change.catch(() => undefined)
    await change
    this.#tellGate()
  }

  /** From now on those, and no others: a container that is made anew under its name is taken again. */
  #watchContainers(containers: readonly ChosenContainer[]): void {
    this.#containers?.stop()
    if (this.#gate.state().phase !== 'open') return
    this.#containers = new ContainerWatch({ containers, onMoved: async (name, from, to) => {
      await this.#gate.moveCgroups(name, from, to)
      // It is what the name means now; nothing else was chosen.
      if (this.#made !== undefined) this.#made = moveCgroups(this.#made, from, to)
      this.#tellGate()
    } })
    this.#containers.start()
  }

  /** Ports the open gate takes as well, or no longer; those added go again after so many seconds, null: they stay. */
  async editPorts({ add, remove, seconds }: BridgeCalls['editPorts']['argument']): Promise<void> {
    const words = (text: string): PortWords => (text.trim() === '' ? { tcp: [], udp: [] } : parsePortWords(text))
    const [more, less] = [words(add), words(remove)]
    await this.#gate.edit(parsePlanEdit({ tcp: { add: more.tcp, remove: less.tcp }, udp: { add: more.udp, remove: less.udp } }), seconds === null ? {} : { duration: seconds * 1000 })
  }

  /** The open gate drains by itself after so many seconds; null: no longer. */
  closeAfter(seconds: number | null): void {
    this.#gate.closeAfter(seconds === null ? null : seconds * 1000)
  }

  /** Back from draining. */
  async resumeGate(): Promise<void> {
    await this.#gate.resume()
  }

  /** Begins draining; the gate's state tells how it goes on. */
  drainGate(): void {
    const { phase } = this.#gate.state()
    if (phase === 'closed') throw new Failure('not-open', 'the gate is not open')
    this.#gate.drain().catch(() => undefined)
  }

  async closeGate(): Promise<void> {
    if (this.#gate.state().phase === 'closed' && !this.#opening) throw new Failure('not-open', 'the gate is not open')
    await this.#gate.close()
  }

  /** Resolves when the gate is closed (at once when it is). */
  async whenClosed(): Promise<void> {
    if (!this.isOpen()) return
    await new Promise<void>((resolve) => this.#closings.add(resolve))
  }

  /** What one key or one click on the tray does: closed opens with the last choice, open drains, opening is given up. Draining is left to two buttons of their own. */
  async toggleGate(): Promise<void> {
    const { phase } = this.#gate.state()
    if (phase === 'closed') await this.openGate(this.#options.settings.settings.choice)
    else if (phase === 'open') this.drainGate()
    else if (phase === 'opening') await this.closeGate()
  }

  /** Shows a session from disk (or the one being recorded). The one on show before stays when this one cannot be read. */
  async openSession(folder: string): Promise<SessionState> {
    const live = folder === this.#recording
    return this.#show(folder, live)
  }

  async #show(folder: string, live: boolean): Promise<SessionState> {
    const view: SessionView = new SessionView({
      folder,
      live,
      startInspector: this.#options.startInspector,
      onState: (state) => {
        if (this.#view === view) this.#options.emit('session', state)
      },
      onChanged: ({ revision, flows, more, summary }) => {
        if (this.#view === view) this.#options.emit('changed', { revision, flows, more, summary })
      },
    })
    // A recording is shown whatever happens to its inspector; a session from disk only once it can be read.
    if (live) this.#replace(view)
    try {
      await view.open()
    } catch (error) {
      if (!live) view.dispose()
      else this.#options.emit('session', { ...view.state(), failure: toFailureReport(error) })
      throw error
    }
    if (!live) this.#replace(view)
    if (live && this.#recording !== folder) await view.finish()
    return view.state()
  }

  #replace(view: SessionView): void {
    const former = this.#view
    this.#view = view
    former?.dispose()
    this.#options.emit('session', view.state())
  }

  #ended(): void {
    for (const resolve of this.#closings) resolve()
    this.#closings.clear()
    this.#control?.close()
    this.#control = undefined
    this.#containers?.stop()
    const folder = this.#recording
    if (folder === undefined) return
    this.#recording = undefined
    if (this.#view?.folder === folder) void this.#view.finish()
  }

  ask<Type extends InspectorCall>(type: Type, args: Parameters<typeof SessionView.prototype.ask<Type>>[1]): Promise<InspectorResults[Type]> {
    if (this.#view === undefined) return Promise.reject(new Failure('session-missing', 'no session is open'))
    return this.#view.ask(type, args)
  }

  changeSettings(part: Parameters<SettingsFile['change']>[0]): void {
    this.#options.emit('settings', this.#options.settings.change(part))
  }

  #tellGate(): void {
    this.#options.emit('gate', this.gate())
  }

  dispose(): void {
    this.#view?.dispose()
    this.#view = undefined
  }
}
