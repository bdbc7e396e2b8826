import type { Client } from '#ui/bridge/client.ts'
import type { GateChoice, GateState, PortActivity, Preview } from '#core/contract/bridge.ts'
import { Failure, toFailureReport, type FailureReport } from '#core/contract/failure.ts'
import { formatPorts } from '#core/plan/formatPorts.ts'
import { makePlan } from '#core/plan/makePlan.ts'
import { mergePorts } from '#core/plan/mergePorts.ts'
import { parsePorts } from '#core/plan/parsePorts.ts'
import type { InterceptionPlan, PortRange, Scope } from '#core/plan/plan.ts'

export const defaultChoice: GateChoice = {
  tcp: '80,443,8080',
  scope: { local: true, forwarded: true },
  interfaces: '',
  exclude: '',
  backend: 'auto',
  payload: true,
}

export interface Preset {
  readonly name: string
  readonly ports: string
  readonly why?: string
}
export const presets: readonly Preset[] = [
  { name: 'Web', ports: '80,443,8080' },
  { name: 'Databases', ports: '5432,3306,6379,27017' },
  { name: 'Mail', ports: '25,110,143,465,587,993,995' },
  { name: 'SSH', ports: '22' },
  { name: 'DNS', ports: '', why: 'DNS speaks UDP, which is chosen with the command: sluice capture --udp 53' },
]

export type ChoiceField = 'tcp' | 'scope' | 'interfaces' | 'exclude' | 'backend'
export interface ChoiceProblem {
  readonly field: ChoiceField
  readonly message: string
}

/** Words of a field as main reads it: separated by commas or white space. */
export function wordsOf(text: string): string[] {
  return text.split(/[\s,]+/).filter((word) => word !== '')
}

/** The plan a choice means. @throws Failure as `makePlan` does. */
export function planOfChoice(choice: GateChoice): InterceptionPlan {
  const scope: Scope[] = []
  if (choice.scope.local) scope.push('local')
  if (choice.scope.forwarded) scope.push('forwarded')
  if (scope.length === 0) throw new Failure('nothing-to-intercept', 'Choose whose traffic: this computer’s programs, routed devices, or both')
  if (choice.tcp.trim() === '') parsePorts('')
  return makePlan({ tcp: choice.tcp, scope, interfaces: wordsOf(choice.interfaces), exclude: wordsOf(choice.exclude), backend: choice.backend })
}

function fieldOf({ code }: FailureReport): ChoiceField {
  switch (code) {
    case 'bad-interface':
    case 'unknown-interface':
      return 'interfaces'
    case 'bad-cidr':
      return 'exclude'
    case 'nothing-to-intercept':
      return 'scope'
    case 'no-backend':
    case 'backend-missing':
      return 'backend'
    default:
      return 'tcp'
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
  readonly #client: Client
  readonly #onChoice: (choice: GateChoice) => void
  #previewTurn = 0

  constructor(client: Client, onChoice: (choice: GateChoice) => void = () => undefined) {
    this.#client = client
    this.#onChoice = onChoice
  }

  readonly #checked = $derived.by((): { plan: InterceptionPlan | null; problem: ChoiceProblem | null } => {
    try {
      return { plan: planOfChoice(this.choice), problem: null }
    } catch (error) {
      const report = toFailureReport(error)
      return { plan: null, problem: { field: fieldOf(report), message: report.message } }
    }
  })
  readonly plan = $derived(this.#checked.plan)
  readonly problem = $derived(this.#checked.problem)
  /** Ranges of the port field alone, whatever the other fields say; null while it is wrong or empty. */
  readonly ranges = $derived.by((): readonly PortRange[] | null => {
    try {
      return parsePorts(this.choice.tcp)
    } catch {
      return null
    }
  })

  problemOf(field: ChoiceField): string | null {
    return this.problem?.field === field ? this.problem.message : null
  }

  set(change: Partial<GateChoice>): void {
    this.choice = { ...this.choice, ...change }
    this.#onChoice(this.choice)
  }

  has(port: number): boolean {
    return this.ranges?.some(({ from, to }) => from <= port && port <= to) ?? false
  }
  hasAll(ports: string): boolean {
    return ports !== '' && parsePorts(ports).every(({ from, to }) => this.ranges?.some((range) => range.from <= from && to <= range.to) ?? false)
  }
  /** Adds the ports, or takes them away when all of them are there. A field that is wrong is left to the person. */
  toggle(ports: string): boolean {
    if (this.ranges === null && this.choice.tcp.trim() !== '') return false
    const change = parsePorts(ports)
    const now = this.ranges ?? []
    this.set({ tcp: formatPorts(this.hasAll(ports) ? without(now, change) : mergePorts([...now, ...change])) })
    return true
  }

  /** What is chosen differs from what the open gate does: it waits for the next opening. */
  isPending(gate: GateState): boolean {
    if (gate.plan === undefined || gate.phase === 'closed') return false
    if (this.plan === null) return true
    const { plan } = gate
    const same = (pick: (plan: InterceptionPlan) => unknown) => JSON.stringify(pick(plan)) === JSON.stringify(pick(this.plan ?? plan))
    return !same((p) => [p.tcp, p.scope, p.interfaces, p.exclude, p.backend])
  }

  /** Asks what would be done; an answer that came too late is dropped. */
  async refreshPreview(): Promise<void> {
    const turn = ++this.#previewTurn
    if (this.plan === null) {
      this.preview = null
      this.previewProblem = null
      return
    }
    this.previewing = true
    try {
      const preview = await this.#client.call('preview', this.choice)
      if (turn !== this.#previewTurn) return
      this.preview = preview
      this.previewProblem = null
    } catch (error) {
      if (turn !== this.#previewTurn) return
      this.preview = null
      this.previewProblem = toFailureReport(error)
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

/** Ranges less some others. */
export function without(ranges: readonly PortRange[], taken: readonly PortRange[]): PortRange[] {
  let left: PortRange[] = [...ranges]
  for (const { from, to } of taken) {
    left = left.flatMap((range) => {
      if (to < range.from || range.to < from) return [range]
      const parts: PortRange[] = []
      if (range.from < from) parts.push({ from: range.from, to: from - 1 })
      if (to < range.to) parts.push({ from: to + 1, to: range.to })
      return parts
    })
  }
  return left
}
