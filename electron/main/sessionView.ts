import type { SessionState } from '#core/contract/bridge.ts'
import { Failure, toFailureReport, type FailureReport } from '#core/contract/failure.ts'
import type { FlowPage, InspectorEvent, InspectorRequest, InspectorResults, SessionSummary } from '#core/contract/inspectorProtocol.ts'

export type InspectorCall = Exclude<InspectorRequest['type'], 'open' | 'finish' | 'cancel'>
type Arguments<Type extends InspectorRequest['type']> = Omit<Extract<InspectorRequest, { type: Type }>, 'id' | 'type'>

/** The part of session/inspectorClient a view uses. */
export interface Inspector {
  request<Type extends Exclude<InspectorRequest['type'], 'cancel'>>(type: Type, args: Arguments<Type>): Promise<InspectorResults[Type]>
  onEvent(listener: (event: InspectorEvent) => void): unknown
  onExit(listener: () => void): unknown
  stop(): unknown
}

export interface SessionViewOptions {
  readonly folder: string
  readonly live: boolean
  readonly startInspector: () => Inspector
  readonly onState: (state: SessionState) => void
  readonly onChanged: (changed: Extract<InspectorEvent, { event: 'changed' }>) => void
}

const nothing: SessionSummary = { flows: 0, live: 0, bytesUp: 0, bytesDown: 0, bytesLost: 0, read: 0, size: 0, notes: [] }

/**
 * One session on show: its inspector, and what is known of it. An inspector that dies (it reads hostile bytes) is started once more; the second
 * time the view says so and stays, as gate and record do not depend on it.
 */
export class SessionView {
  readonly folder: string
  readonly #options: SessionViewOptions
  #live: boolean
  #inspector: Inspector | undefined
  #opened: Promise<void> = Promise.resolve()
  #restarted = false
  #disposed = false
  #summary = nothing
  #failure: FailureReport | undefined
  /** The page's revision never falls, whereas each inspector counts from its own start. */
  #base = 0
  #revision = 0

  constructor(options: SessionViewOptions) {
    this.#options = options
    this.folder = options.folder
    this.#live = options.live
  }

  state(): SessionState {
    const name = this.folder.replace(/\/+$/, '').split('/').pop() ?? this.folder
    const state = { folder: this.folder, name, live: this.#live, summary: this.#summary, revision: this.#revision }
    return this.#failure === undefined ? state : { ...state, failure: this.#failure }
  }

  /** Resolves when the session can be asked. Throws Failure when it cannot be read. */
  async open(): Promise<void> {
    this.#opened = this.#begin()
    await this.#opened
  }

  async #begin(): Promise<void> {
    const inspector = this.#options.startInspector()
    this.#inspector = inspector
    inspector.onEvent((event) => {
      if (event.event !== 'changed' || this.#inspector !== inspector) return
      this.#learn(event.summary, event.revision)
      this.#options.onChanged({ ...event, revision: this.#revision })
    })
    inspector.onExit(() => {
      if (this.#inspector === inspector) this.#lost()
    })
    const live = this.#live
    this.#learn(await inspector.request('open', { folder: this.folder, live }))
    if (live && !this.#live) this.#learn(await inspector.request('finish', {}))
    this.#tell()
  }

  #lost(): void {
    this.#inspector = undefined
    if (this.#disposed) return
    const again = !this.#restarted
    this.#restarted = true
    this.#base = this.#revision + 1
    this.#revision = this.#base
    this.#opened = again ? this.#begin() : Promise.reject(new Failure('inspector-died', 'the inspector ended twice while reading this session; its record is untouched'))
    this.#opened.catch((error: unknown) => {
      this.#failure = toFailureReport(error)
      this.#tell()
    })
  }

  async ask<Type extends InspectorCall>(type: Type, args: Arguments<Type>): Promise<InspectorResults[Type]> {
    await this.#opened
    if (this.#inspector === undefined) throw new Failure('inspector-died', 'the inspector of this session is not running')
    const base = this.#base
    const result = await this.#inspector.request(type, args)
    if (type === 'flows') {
      const page = result as FlowPage
      return { ...page, revision: page.revision + base } as InspectorResults[Type]
    }
    return result
  }

  /** Nothing is written to the record any more. */
  async finish(): Promise<void> {
    if (!this.#live) return
    this.#live = false
    this.#tell()
    try {
      await this.#opened
      const inspector = this.#inspector
      if (inspector !== undefined) this.#learn(await inspector.request('finish', {}))
    } catch {
      // Said by #lost, or the view was never open.
    }
    this.#tell()
  }

  dispose(): void {
    this.#disposed = true
    const inspector = this.#inspector
    this.#inspector = undefined
    inspector?.stop()
  }

  #learn(summary: SessionSummary, revision?: number): void {
    this.#summary = summary
    if (revision !== undefined) this.#revision = Math.max(this.#revision, this.#base + revision)
  }

  #tell(): void {
    if (!this.#disposed) this.#options.onState(this.state())
  }
}
