import type { Action } from './actionLog.ts'
import type { FailureReport } from './failure.ts'
import type { BodyPage, ExportFormat, ExportResult, FlowPage, SessionSummary, SortKey, StreamPage } from './inspectorProtocol.ts'
import type { FlowDetails } from '../flow/flow.ts'
import type { Backend, InterceptionPlan } from '../plan/plan.ts'
import type { TimedPorts } from '../plan/timedPorts.ts'

/**
 * Page <-> main. Every call is `invoke(name, argument)` with one argument validated in main by `bridgeArguments` (bridgeArguments.ts);
 * the sender's frame is checked; the answer is `{ok:true,value}` or `{ok:false,error}`. Events come by `on(name, listener)`.
 */
export type GatePhase = 'closed' | 'opening' | 'open' | 'draining' | 'closing'

/** What of an open gate ends by itself. */
export interface GateEnds {
  /** When the whole gate drains and closes. */
  readonly gate?: number
  /** Ports that go, the next first. */
  readonly ports: readonly TimedPorts[]
}

/** All the window and the tray show of the gate; sent whole whenever it changes. Times are of the wall clock, in milliseconds. */
export interface GateState {
  readonly phase: GatePhase
  /** Step under way while opening or closing, for a person. */
  readonly step?: string
  /** The plan of the gate that is open (or opening, draining). */
  readonly plan?: InterceptionPlan
  readonly backend?: Backend
  readonly openedAt?: number
  /** Left out when nothing ends by itself. */
  readonly ends?: GateEnds
  /** Flows the relay carries now, carried so far, bytes relayed. */
  readonly active: number
  readonly total: number
  readonly bytes: number
  readonly recording: 'on' | 'slow' | 'stopped' | 'off'
  readonly warnings: readonly string[]
  /** Why the gate last failed to open or closed by itself; cleared by the next opening. */
  readonly failure?: FailureReport
}

/** What a person chooses, as text, before it becomes a plan; kept in settings. */
export interface GateChoice {
  readonly tcp: string
  readonly scope: { readonly local: boolean; readonly forwarded: boolean }
  readonly interfaces: string
  readonly exclude: string
  readonly backend: 'auto' | Backend
  readonly payload: boolean
}
export interface Preview {
  readonly plan: InterceptionPlan
  readonly backend: Backend
  /** Plain sentences. */
  readonly description: readonly string[]
  /** Rule text in the backend's syntax, one entry a tool: {title: "nft -f -", text}. */
  readonly texts: readonly { readonly title: string; readonly text: string }[]
  readonly digest: string
}
/** A port somebody listens on or talks to right now. */
export interface PortActivity {
  readonly port: number
  readonly transport: 'tcp' | 'udp'
  readonly kind: 'listening' | 'talking'
  /** Connections counted (talking). */
  readonly count: number
  readonly program?: string
  readonly addresses: readonly string[]
  /** Well-known name of the port, if any. */
  readonly service?: string
}
export interface SessionState {
  readonly folder: string
  readonly name: string
  readonly live: boolean
  readonly summary: SessionSummary
  readonly revision: number
  readonly failure?: FailureReport
}
export interface DoctorRow {
  readonly id: string
  readonly title: string
  readonly verdict: 'ok' | 'warn' | 'fail'
  readonly fact: string
  /** What to do about it, exact. */
  readonly mend?: string
}
export interface Settings {
  readonly theme: 'system' | 'light' | 'dark'
  readonly choice: GateChoice
  readonly recentPorts: readonly string[]
}
export interface AppInfo {
  readonly version: string
  readonly electron: string
  readonly demo: boolean
  readonly user: string
  readonly interfaces: readonly string[]
}

export interface BridgeCalls {
  getInfo: { argument: null; value: AppInfo }
  getGate: { argument: null; value: GateState }
  getSession: { argument: null; value: SessionState | null }
  getSettings: { argument: null; value: Settings }
  setSettings: { argument: Partial<Settings>; value: Settings }
  preview: { argument: GateChoice; value: Preview }
  openGate: { argument: GateChoice; value: null }
  drainGate: { argument: null; value: null }
  closeGate: { argument: null; value: null }
  listPorts: { argument: null; value: readonly PortActivity[] }
  doctor: { argument: null; value: readonly DoctorRow[] }
  /** What was done to this machine as root of late, oldest first, at most 500; of this network namespace and others. */
  listActions: { argument: null; value: readonly Action[] }
  flows: { argument: { filter: string; sort: SortKey; descending: boolean; offset: number; limit: number }; value: FlowPage }
  position: { argument: { flow: number; filter: string; sort: SortKey; descending: boolean }; value: number | null }
  flow: { argument: { flow: number; exchangeOffset: number; exchangeLimit: number }; value: FlowDetails }
  stream: { argument: { flow: number; direction: 'both' | 'up' | 'down'; offset: number; limit: number }; value: StreamPage }
  body: { argument: { flow: number; exchange: number; part: 'request' | 'response'; decoded: boolean; offset: number; limit: number }; value: BodyPage }
  /** Asks where with a save dialog, then exports. null: the person cancelled the dialog. */
  exportSession: { argument: { format: ExportFormat; filter: string }; value: (ExportResult & { path: string }) | null }
  cancelExport: { argument: null; value: null }
  /** Asks for a session folder with a dialog and opens it. */
  openSession: { argument: null; value: SessionState | null }
  copyText: { argument: string; value: null }
  showFolder: { argument: null; value: null }
}
export interface BridgeEvents {
  gate: GateState
  session: SessionState | null
  /** Flows changed: refetch what is shown. */
  changed: { revision: number; flows: readonly number[]; more: boolean; summary: SessionSummary }
  exportProgress: { done: number; of: number }
  /** From menu or tray: go to a place in the window. */
  navigate: 'ports' | 'flows' | 'export' | 'preview' | 'filter' | 'doctor' | 'about'
  settings: Settings
}
export type BridgeAnswer<Name extends keyof BridgeCalls> =
  | { readonly ok: true; readonly value: BridgeCalls[Name]['value'] }
  | { readonly ok: false; readonly error: FailureReport }
/** What preload exposes as `window.sluice`. */
export interface Bridge {
  invoke<Name extends keyof BridgeCalls>(name: Name, argument: BridgeCalls[Name]['argument']): Promise<BridgeAnswer<Name>>
  on<Name extends keyof BridgeEvents>(name: Name, listener: (value: BridgeEvents[Name]) => void): () => void
}
