import type { Client } from '#ui/bridge/client.ts'
import type { AppInfo, BridgeEvents, DoctorRow, GateState, SessionState, Settings } from '#core/contract/bridge.ts'
import { toFailureReport, type FailureReport } from '#core/contract/failure.ts'
import { defaultChoice, wordsOf } from '#core/plan/gateChoice.ts'
import { filterLanguage, knownValues } from '#ui/lib/filterLanguage.ts'
import { ActionsStore } from './actions.svelte.ts'
import { Columns } from './columns.svelte.ts'
import { DetailsStore } from './details.svelte.ts'
import { Exporting } from './exporting.svelte.ts'
import { FilterBox } from './filter.svelte.ts'
import { FlowList } from './flows.svelte.ts'
import { GateStore } from './gate.svelte.ts'
import { Marks } from './marks.svelte.ts'
import { Notices } from './notices.svelte.ts'
import { PortsStore } from './ports.svelte.ts'
import { ViewState } from './view.svelte.ts'

/** The whole state of the window: the stores, and what one tells another. */
export class AppState {
  readonly client: Client
  readonly notices = new Notices()
  readonly view = new ViewState()
  readonly columns = new Columns()
  readonly marks = new Marks()
  readonly actions: ActionsStore
  readonly gate: GateStore
  readonly ports: PortsStore
  readonly flows: FlowList
  readonly filter: FilterBox
  readonly details: DetailsStore
  readonly exporting: Exporting
  info = $state.raw<AppInfo | null>(null)
  session = $state.raw<SessionState | null>(null)
  settings = $state.raw<Settings>({ theme: 'system', choice: defaultChoice, recentPorts: [] })
  doctor = $state.raw<readonly DoctorRow[] | null>(null)
  doctorProblem = $state.raw<FailureReport | null>(null)
  doctorRunning = $state(false)
  /** First answers are here. */
  ready = $state(false)
  #saving: ReturnType<typeof setTimeout> | undefined

  constructor(client: Client) {
    this.client = client
    this.actions = new ActionsStore(client)
    this.gate = new GateStore(client, () => {
      this.flushSettings()
      this.view.go('flows')
    })
    this.ports = new PortsStore(client, () => this.#saveSoon())
    this.flows = new FlowList(client)
    this.filter = new FilterBox(filterLanguage(() => knownValues(this.flows.heldRows())), (filter) => {
      if (filter !== this.flows.query.filter) void this.flows.ask({ filter })
    })
    this.details = new DetailsStore(client)
    this.exporting = new Exporting(client, this.notices)
  }

  /** Listens first and asks then, so that nothing falls between. */
  async start(): Promise<void> {
    const { client } = this
    let told = false
    client.on('gate', (state) => {
      told = true
      this.#takeGate(state)
    })
    client.on('session', (session) => void this.#takeSession(session))
    client.on('changed', (change) => this.#takeChange(change))
    client.on('exportProgress', (progress) => this.exporting.progress(progress))
    client.on('navigate', (where) => this.navigate(where))
    client.on('settings', (settings) => this.#takeSettings(settings))
    await this.notices.attempt(async () => {
      const [info, settings, gate, session] = await Promise.all([
        client.call('getInfo', null),
        client.call('getSettings', null),
        client.call('getGate', null),
        client.call('getSession', null),
      ])
      this.info = info
      this.#takeSettings(settings)
      this.ports.choice = settings.choice
      // An event that came meanwhile knows better than an answer given before it.
      if (!told) this.gate.take(gate)
      if (this.session === null) await this.#takeSession(session)
      this.view.go(this.session !== null || this.gate.isOpen ? 'flows' : 'ports')
    })
    this.ready = true
  }

  navigate(where: BridgeEvents['navigate']): void {
    switch (where) {
      case 'ports':
        return this.view.focusPorts()
      case 'preview':
        this.view.showPreview = true
        return this.view.go('ports')
      case 'flows':
      case 'doctor':
        return this.view.go(where)
      case 'filter':
        return this.view.focusFilter()
      case 'export':
        this.openExport()
        return
      case 'about':
        this.view.dialog = 'about'
        return
    }
  }

  /** Ctrl+E, the one key for the gate. Cutting flows is never on it: while draining it leads to the button that would. */
  async toggleGate(): Promise<void> {
    await this.notices.attempt(async () => {
      switch (this.gate.state.phase) {
        case 'closed':
          return this.openGate()
        case 'open':
          return this.gate.drain()
        case 'opening':
          return this.gate.close()
        case 'draining':
          this.view.closeCalls += 1
          return
        case 'closing':
          return
      }
    })
  }
  async openGate(): Promise<void> {
    if (this.ports.problem !== null) {
      this.view.focusPorts()
      return
    }
    await this.notices.attempt(() => this.gate.open(this.ports.choice))
  }
  /** The open gate does what is chosen now, without cutting anything. */
  async applyChoice(): Promise<void> {
    if (this.ports.problem !== null) {
      this.view.focusPorts()
      return
    }
    await this.notices.attempt(async () => {
      await this.gate.change(this.ports.choice)
      this.notices.add({ kind: 'done', text: 'The gate does what you chose; nothing was cut' })
    })
  }
  /** The ports that were added go again by themselves. */
  async applyPortsFor(seconds: number): Promise<void> {
    const add = this.ports.addedPorts(this.gate.state)
    if (add === null) return
    await this.notices.attempt(async () => {
      await this.gate.editPorts({ add, seconds })
      // They are not chosen for the next opening.
      this.discardChoice()
    })
  }
  /** Back to what the open gate does. */
  discardChoice(): void {
    const { choice } = this.gate.state
    if (choice !== undefined) this.ports.set(choice)
  }
  /** New flows to this server are not taken, from now on while the gate is open, else from the next opening on. Flows under way go on. */
  async leaveAlone(server: string): Promise<void> {
    // What is left alone is so on every link.
    const address = server.split('%', 1)[0] ?? server
    await this.notices.attempt(async () => {
      const live = await this.#exclude(address, true)
      this.notices.add({
        kind: 'done',
        text: live ? `${address} is left alone from now on` : `${address} will be left alone`,
        details: [live ? 'Its flows under way go on and are recorded to their end.' : 'It counts from the next opening on.'],
        action: { label: 'Undo', run: () => void this.notices.attempt(() => this.#takeAgain(address)) },
      })
    })
  }
  async #takeAgain(address: string): Promise<void> {
    await this.#exclude(address, false)
    this.notices.drop((notice) => notice.action?.label === 'Undo' && notice.text.startsWith(`${address} `))
    this.notices.add({ kind: 'done', text: `${address} is no longer left alone` })
  }
  /** True when the open gate does it already. */
  async #exclude(address: string, on: boolean): Promise<boolean> {
    const changed = (text: string): string => [...wordsOf(text).filter((word) => word !== address), ...(on ? [address] : [])].join(', ')
    const { choice, phase } = this.gate.state
    const live = phase === 'open' && choice !== undefined
    // Only this: what else is being chosen waits for the person.
    if (live) await this.gate.change({ ...choice, exclude: changed(choice.exclude) })
    this.ports.set({ exclude: changed(this.ports.choice.exclude) })
    return live
  }
  openExport(): void {
    if (this.session === null) this.notices.add({ kind: 'info', text: 'There is no session to export yet', details: ['Open the gate, or open a session from disk.'] })
    else {
      if (!this.exporting.running) this.exporting.onlyMatching = this.flows.isFiltered
      this.view.dialog = 'export'
    }
  }
  async openSession(): Promise<void> {
    await this.notices.attempt(async () => {
      const session = await this.client.call('openSession', null)
      if (session === null) return
      await this.#takeSession(session)
      this.view.go('flows')
    })
  }
  async copy(text: string, what: string): Promise<void> {
    const done = await this.notices.attempt(async () => {
      await this.client.call('copyText', text)
      return true
    })
    if (done === true) this.notices.add({ kind: 'info', text: `Copied ${what}` })
  }
  async runDoctor(): Promise<void> {
    if (this.doctorRunning) return
    this.doctorRunning = true
    try {
      this.doctor = await this.client.call('doctor', null)
      this.doctorProblem = null
    } catch (error) {
      this.doctorProblem = toFailureReport(error)
    } finally {
      this.doctorRunning = false
    }
  }
  async setTheme(theme: Settings['theme']): Promise<void> {
    await this.notices.attempt(async () => this.#takeSettings(await this.client.call('setSettings', { theme })))
  }
  /** What was chosen a moment ago is kept now. */
  flushSettings(): void {
    if (this.#saving === undefined) return
    clearTimeout(this.#saving)
    this.#saving = undefined
    void this.notices.attempt(async () => this.#takeSettings(await this.client.call('setSettings', { choice: this.ports.choice })))
  }

  /** What somebody else changes of the open gate (the command, a port whose time is up) is taken over, unless a person is choosing something else just now. */
  #takeGate(state: GateState): void {
    const before = this.gate.state
    const inForce = before.choice !== undefined && !this.ports.isPending(before)
    this.gate.take(state)
    if (inForce && state.choice !== undefined && this.ports.isPending(state)) this.ports.set(state.choice)
  }
  #saveSoon(): void {
    clearTimeout(this.#saving)
    this.#saving = setTimeout(() => this.flushSettings(), 500)
  }
  #takeSettings(settings: Settings): void {
    this.settings = settings
    this.ports.recents = settings.recentPorts
    // A recent set may be picked from the tray; what a person is typing right now is not overwritten.
    if (this.ready && this.#saving === undefined) this.ports.choice = settings.choice
    document.documentElement.dataset['theme'] = settings.theme
  }
  async #takeSession(session: SessionState | null): Promise<void> {
    const before = this.session
    this.session = session
    if (session?.folder !== before?.folder) this.marks.use(session?.folder ?? null)
    if (session === null) {
      this.flows.clear()
      await this.details.show(null)
      return
    }
    if (before?.folder === session.folder) {
      await this.flows.changed(session.revision)
      return
    }
    this.view.go('flows')
    this.flows.following = session.live
    await this.details.show(null)
    await this.flows.restart()
  }
  #takeChange({ revision, flows, more, summary }: BridgeEvents['changed']): void {
    if (this.session !== null) this.session = { ...this.session, revision, summary }
    void this.flows.changed(revision)
    void this.details.changed(flows, more)
  }
}
