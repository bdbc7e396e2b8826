import type { Action } from './actionLog.ts'
import type { FailureReport } from './failure.ts'
import type { BodyPage, ExportFormat, ExportResult, FlowPage, SessionSummary, SortKey, StreamPage } from './inspectorProtocol.ts'
import type { FlowDetails } from '../flow/flow.ts'
import type { Backend, BackendChoice, InterceptionPlan, Scope } from '../plan/plan.ts'
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
  /** Since when it drains (ms since the epoch), and the most flows that ran since. */
  readonly draining?: { readonly since: number; readonly of: number }
  /** In the window alone: what the gate does, as a choice. */
  readonly choice?: GateChoice
  /** Why the gate last failed to open or closed by itself; cleared by the next opening. */
  readonly failure?: FailureReport
}

/** A proxy some ports go to, as typed: `kind` and `to` as `--send` takes them. */
export interface SendChoice {
  readonly ports: string
  readonly kind: 'proxy2' | 'socks5' | 'tproxy'
  readonly to: string
}
/** What a person chooses, as text, before it becomes a plan (core/plan/gateChoice.ts); kept in settings. Lists are separated by commas or white space. */
export interface GateChoice {
  /** `80, 443, 53/udp`. */
  readonly ports: string
  /** UDP ports. */
  readonly refuse: string
  /** Seconds; empty: the usual. */
  readonly udpIdle: { readonly dns: string; readonly quic: string; readonly other: string }
  readonly send: readonly SendChoice[]
  readonly scope: { readonly [Key in Scope]: boolean }
  readonly interfaces: string
  /** Names or ids. */
  readonly users: string
  readonly groups: string
  /** Units (`nginx.service`), containers (`container:web`), cgroups (`user.slice/user-1000.slice`). */
  readonly programs: string
  readonly sources: string
  readonly excludeSources: string
  readonly servers: string
  readonly exclude: string
  /** Name of another network namespace, or a process in it; empty: where Sluice runs. */
  readonly netns: string
  readonly backend: 'auto' | Backend
  readonly hold: boolean
  /** Servers see devices' own ports; only where SYNs are held, so without `hold` it means nothing. */
  readonly keepPort: boolean
  /** As `parseMarks` and `parseTable` read them; empty: the usual. */
  readonly marks: string
  readonly table: string
  /** As `parsePriority` reads it; empty: the usual. */
  readonly priority: string
  readonly payload: boolean
  /** What is recorded at most: bytes as a person writes them; empty: no limit. Beyond `session` the oldest part of the record goes. */
  readonly keep: { readonly session: string; readonly flow: string }
  /** Flows at once, as `flowChoice` reads it; empty: the usual. */
  readonly maxFlows: string
}
export type ChoiceField = keyof GateChoice
/** Something about a choice that only a look at the machine can tell: there is no such user, unit, container. */
export interface ChoiceProblem {
  readonly field: ChoiceField
  readonly message: string
}
export interface Preview {
  readonly plan: InterceptionPlan
  /** `auto`: found out in the other network namespace. */
  readonly backend: BackendChoice
  /** Plain sentences. */
  readonly description: readonly string[]
  /** Rule text in the backend's syntax, one entry a tool: {title: "nft -f -", text}. */
  readonly texts: readonly { readonly title: string; readonly text: string }[]
  /** Where this tool does what another would do otherwise; empty while it is not known which one. */
  readonly differences: readonly { readonly id: string; readonly title: string; readonly text: string }[]
  /** Empty for another network namespace: only root can look into it, so the rules are worked out there. */
  readonly digest: string
}
/** What this machine has that a choice can name. */
export interface Suggestions {
  readonly users: readonly Suggestion[]
  readonly groups: readonly Suggestion[]
  /** Units and containers that run, as words of `programs`. */
  readonly programs: readonly Suggestion[]
  readonly interfaces: readonly Suggestion[]
  /** Networks this machine is in, and its routes lead to. */
  readonly networks: readonly Suggestion[]
  /** Named ones, and one process of each other one that can be seen. */
  readonly namespaces: readonly Suggestion[]
}
export interface Suggestion {
  readonly word: string
  readonly hint: string
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
  preview: { argument: GateChoice; value: Preview | { readonly problem: ChoiceProblem } }
  suggestions: { argument: null; value: Suggestions }
  openGate: { argument: GateChoice; value: null }
  /** Other choices for the open gate; cuts nothing. */
  changeGate: { argument: GateChoice; value: null }
  /** Ports (`parsePortWords`; may be empty) the open gate takes as well, or no longer. Those added go again after `seconds`; null: they stay. */
  editPorts: { argument: { readonly add: string; readonly remove: string; readonly seconds: number | null }; value: null }
  /** The open gate drains by itself; null: no longer. */
  closeAfter: { argument: number | null; value: null }
  /** Back from draining. */
  resumeGate: { argument: null; value: null }
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
