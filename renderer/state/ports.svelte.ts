import type { Client } from '#ui/bridge/client.ts'
import type { ChoiceField, ChoiceProblem, GateChoice, GateState, PortActivity, Preview, Suggestions } from '#core/contract/bridge.ts'
import { toFailureReport, type FailureReport } from '#core/contract/failure.ts'
import { checkChange } from '#core/plan/checkChange.ts'
import { formatPortWords } from '#core/plan/formatPortWords.ts'
import { parsePortWords, type PortWords } from '#core/plan/parsePortWords.ts'
import { formatPorts } from '#core/plan/formatPorts.ts'
import { checkChoice, choiceKey, defaultChoice, planOfChoice, wordsOf } from '#core/plan/gateChoice.ts'
import { flowsAreFixed } from '#core/plan/flowChoice.ts'
import { keepIsFixed, keepsSame } from '#core/plan/keepLimits.ts'
import { mergePorts } from '#core/plan/mergePorts.ts'
import { parsePorts } from '#core/plan/parsePorts.ts'
import type { PortRange } from '#core/plan/plan.ts'
import { comparePlans } from '#core/plan/planDifference.ts'
import { withoutPorts } from '#core/plan/portSets.ts'

export interface Preset {
  readonly name: string
  readonly ports: string
}
export const presets: readonly Preset[] = [
  { name: 'Web', ports: '80, 443, 8080' },
  { name: 'DNS', ports: '53, 53/udp' },
  { name: 'QUIC', ports: '443/udp' },
  { name: 'Databases', ports: '5432, 3306, 6379, 27017' },
  { name: 'Mail', ports: '25, 110, 143, 465, 587, 993, 995' },
  { name: 'SSH', ports: '22' },
]
/** What browsers speak QUIC to; refused, they fall back to TCP. */
const quicPort: PortRange = { from: 443, to: 443 }

/** Where a failure of the whole plan on this machine belongs. */
function fieldOf({ code }: FailureReport): ChoiceField | null {
  switch (code) {
    case 'bad-interface':
    case 'unknown-interface':
      return 'interfaces'
    case 'unknown-cgroup':
    case 'bad-cgroup':
      return 'programs'
    case 'no-backend':
    case 'backend-missing':
      return 'backend'
    case 'marks-taken':
      return 'marks'
    case 'table-taken':
      return 'table'
    default:
      return null
  }
}

export class PortsStore {
  choice = $state.raw<GateChoice>(defaultChoice)
  recents = $state.raw<readonly string[]>([])
  activity = $state.raw<readonly PortActivity[] | null>(null)
  activityProblem = $state.raw<FailureReport | null>(null)
  preview = $state.raw<Preview | null>(null)
  previewProblem = $state.raw<FailureReport | null>(null)
  previewing = $state(false)
  /** A name this machine does not know. */
  unknown = $state.raw<ChoiceProblem | null>(null)
  /** What this machine cannot do, as far as one may see who is not root: said, but no reason not to try. */
  doubt = $state.raw<ChoiceProblem | null>(null)
  suggestions = $state.raw<Suggestions | null>(null)
  readonly #client: Client
  readonly #onChoice: (choice: GateChoice) => void
  #previewTurn = 0

  readonly #checked = $derived(checkChoice(this.choice))

  constructor(client: Client, onChoice: (choice: GateChoice) => void = () => undefined) {
    this.#client = client
    this.#onChoice = onChoice
  }

  /** What can be said here, and what main found out about names. */
  readonly problems: Readonly<Partial<Record<ChoiceField, string>>> = $derived({ ...(this.unknown === null ? {} : { [this.unknown.field]: this.unknown.message }), ...this.#checked })
  readonly problem: ChoiceProblem | null = $derived.by(() => {
    const [field, message] = Object.entries(this.problems)[0] ?? []
    return field === undefined || message === undefined ? null : { field: field as ChoiceField, message }
  })
  /** Ranges of the port field alone, whatever the other fields say; null while it is wrong or empty. */
  readonly chosen: PortWords | null = $derived.by(() => {
    try {
      return parsePortWords(this.choice.ports)
    } catch {
      return null
    }
  })
  readonly refusesQuic = $derived.by(() => covers(rangesOr(this.choice.refuse), [quicPort]))

  problemOf(field: ChoiceField): string | null {
    return this.problems[field] ?? (this.doubt?.field === field ? this.doubt.message : null)
  }

  set(change: Partial<GateChoice>): void {
    this.choice = { ...this.choice, ...change }
    this.unknown = null
    this.doubt = null
    this.#onChoice(this.choice)
  }

  has(port: number, transport: 'tcp' | 'udp'): boolean {
    return covers(this.chosen?.[transport] ?? [], [{ from: port, to: port }])
  }
  hasAll(text: string): boolean {
    const { tcp, udp } = parsePortWords(text)
    return this.chosen !== null && covers(this.chosen.tcp, tcp) && covers(this.chosen.udp, udp)
  }
  /** Adds the ports, or takes them away when all of them are there. A field that is wrong is left to the person. */
  toggle(text: string): boolean {
    if (this.chosen === null && this.choice.ports.trim() !== '') return false
    const change = parsePortWords(text)
    const now = this.chosen ?? { tcp: [], udp: [] }
    const step = this.hasAll(text) ? withoutPorts : (ranges: readonly PortRange[], more: readonly PortRange[]) => mergePorts([...ranges, ...more])
    this.set({ ports: formatPortWords({ tcp: step(now.tcp, change.tcp), udp: step(now.udp, change.udp) }) })
    return true
  }
  toggleQuicRefusal(): boolean {
    if (this.problemOf('refuse') !== null) return false
    const now = rangesOr(this.choice.refuse)
    this.set({ refuse: formatPorts(this.refusesQuic ? withoutPorts(now, [quicPort]) : mergePorts([...now, quicPort])) })
    return true
  }

  /** What is chosen differs from what the open gate does. */
  isPending(gate: GateState): boolean {
    if (gate.choice === undefined || gate.phase === 'closed') return false
    return choiceKey(this.choice) !== choiceKey(gate.choice) || this.choice.payload !== gate.choice.payload || (this.problemOf('keep') === null && !keepsSame(this.choice.keep, gate.choice.keep)) || this.choice.maxFlows.trim() !== gate.choice.maxFlows.trim()
  }
  /** Why that cannot be done while the gate is open; null: it can. */
  liveProblem({ plan, backend, choice }: GateState): string | null {
    if (this.problem !== null) return this.problem.message
    if (plan === undefined || backend === undefined || choice === undefined) return 'The gate is not open'
    if (choice.netns.trim() !== this.choice.netns.trim()) return 'The network namespace cannot be changed while the gate is open'
    if (choice.payload !== this.choice.payload) return 'Whether payload is kept cannot be changed while the gate is open'
    if (!keepsSame(choice.keep, this.choice.keep)) return keepIsFixed
    if (choice.maxFlows.trim() !== this.choice.maxFlows.trim()) return flowsAreFixed
    try {
      // Names are no matter of this: whom it concerns can always be changed.
      checkChange(plan, planOfChoice(this.choice, { users: [], groups: [], cgroups: [] }), backend)
      return null
    } catch (error) {
      return toFailureReport(error).message
    }
  }

  /** The ports that are all the open gate lacks of what is chosen, so that they can be had for a while; null when there is more to it. */
  addedPorts(gate: GateState): string | null {
    if (gate.choice === undefined || this.liveProblem(gate) !== null) return null
    const [now, next] = [gate.choice, this.choice].map((choice) => planOfChoice(choice, { users: [], groups: [], cgroups: [] }))
    const names = (choice: GateChoice) => [choice.users, choice.groups, choice.programs].map((text) => wordsOf(text).sort().join())
    if (now === undefined || next === undefined || names(gate.choice).join(';') !== names(this.choice).join(';')) return null
    const { ports, networks, names: listed, others } = comparePlans(now, next)
    const rest = [...Object.values({ ...networks, ...listed }).flatMap(({ added, removed }) => [...added, ...removed]), ...ports.tcp.removed, ...ports.udp.removed, ...others]
    const added = { tcp: ports.tcp.added, udp: ports.udp.added }
    return rest.length > 0 || added.tcp.length + added.udp.length === 0 ? null : formatPortWords(added)
  }

  async loadSuggestions(): Promise<void> {
    try {
      this.suggestions = await this.#client.call('suggestions', null)
    } catch {
      // Every field takes what is typed as well.
    }
  }

  /** Asks what would be done; an answer that came too late is dropped. */
  async refreshPreview(): Promise<void> {
    const turn = ++this.#previewTurn
    if (Object.keys(this.#checked).length > 0) {
      this.preview = null
      this.previewProblem = null
      return
    }
    this.previewing = true
    try {
      const preview = await this.#client.call('preview', this.choice)
      if (turn !== this.#previewTurn) return
      this.preview = 'problem' in preview ? null : preview
      this.unknown = 'problem' in preview ? preview.problem : null
      this.previewProblem = null
    } catch (error) {
      if (turn !== this.#previewTurn) return
      const report = toFailureReport(error)
      const field = fieldOf(report)
      this.doubt = field === null ? null : { field, message: report.message }
      this.preview = null
      this.previewProblem = report
    } finally {
      if (turn === this.#previewTurn) this.previewing = false
    }
  }

  /** Looks at once and then every `every` ms while the window is seen. Call what it returns to stop. */
  watchActivity(every = 2000, isSeen: () => boolean = () => document.visibilityState === 'visible'): () => void {
    let timer: ReturnType<typeof setTimeout> | undefined
    let stopped = false
    const look = async () => {
      if (isSeen()) await this.refreshActivity()
      if (!stopped) timer = setTimeout(() => void look(), every)
    }
    void look()
    return () => {
      stopped = true
      clearTimeout(timer)
    }
  }
  async refreshActivity(): Promise<void> {
    try {
      this.activity = await this.#client.call('listPorts', null)
      this.activityProblem = null
    } catch (error) {
      this.activityProblem = toFailureReport(error)
    }
  }
}

function covers(ranges: readonly PortRange[], wanted: readonly PortRange[]): boolean {
  return withoutPorts(wanted, ranges).length === 0
}
function rangesOr(text: string): readonly PortRange[] {
  try {
    return text.trim() === '' ? [] : parsePorts(text)
  } catch {
    return []
  }
}
