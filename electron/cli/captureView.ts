import type { GateState } from '#core/contract/bridge.ts'
import type { FlowRow } from '#core/flow/flow.ts'
import { formatPlanPorts } from '#core/plan/formatPlanPorts.ts'
import { formatPorts } from '#core/plan/formatPorts.ts'
import type { InterceptionPlan } from '#core/plan/plan.ts'
import { describeDifference } from '#core/plan/planDifference.ts'
import type { PlanDifference } from '#core/plan/planDifference.ts'
import { takesDevices } from '#core/plan/takesDevices.ts'
import { flowHeader, flowLine } from './flowTable.ts'
import { counted, formatBytes } from './format.ts'
import type { Output } from './output.ts'
import { fit, printable } from './printable.ts'

export interface Ready {
  readonly plan: InterceptionPlan
  readonly backend: string
  readonly relayPort: number
  /** The kernel can only redirect; what that loses has been said in warnings. */
  readonly redirects: boolean
  readonly session: string
  /** Milliseconds the opening took. */
  readonly took: number
}

/** How a capture shows itself while it runs. */
export interface CaptureView {
  readonly step: (text: string) => void
  readonly ready: (ready: Ready) => Promise<void>
  readonly opened: (row: FlowRow) => Promise<void>
  readonly ended: (row: FlowRow) => Promise<void>
  readonly seen: (row: FlowRow) => void
  readonly gate: (state: GateState) => void
  /** Somebody changed the open gate. */
  readonly changed: (difference: PlanDifference, state: GateState) => Promise<void>
  readonly warning: (message: string) => void
  readonly note: (message: string) => void
  readonly closed: (state: GateState, session: string) => Promise<void>
}

export function readyLine(ready: Ready): string {
  const { plan, backend, relayPort, redirects, session } = ready
  return `READY ${backend} ${formatPlanPorts(takenOf(ready))} ${plan.scope.join(' ')} ${redirects ? 'redirected to' : 'relay'} ${listensAt(ready)}:${relayPort} session ${printable(session)}`
}
/** Who redirects takes no UDP. */
function takenOf({ plan, redirects }: Ready): Pick<InterceptionPlan, 'tcp' | 'udp'> {
  return { tcp: plan.tcp, udp: redirects ? [] : plan.udp }
}
function listensAt({ plan, redirects }: Ready): string {
  return redirects && takesDevices(plan) ? '0.0.0.0' : '127.0.0.1'
}
const summary = (state: GateState, session: string): string => `Closed: ${counted(state.total, 'flow')}, ${formatBytes(state.bytes)}, in ${session}`
const nothing = (): void => undefined

function changedLine(difference: PlanDifference, { plan }: GateState): string {
  const parts = describeDifference(difference)
  return `CHANGED ${plan === undefined ? '' : formatPlanPorts(plan)}: ${parts.length === 0 ? 'nothing' : parts.join('; ')}`
}
/** As a program reads it: ports in one text each, as `ready` has them. What differs and is no list is `changed`, by its name in the plan. */
export function changeEvent({ ports, networks, names, others }: PlanDifference): object {
  const texts = (way: 'added' | 'removed'): object => ({ tcp: formatPorts(ports.tcp[way]), udp: formatPorts(ports.udp[way]), ...Object.fromEntries(Object.entries({ ...networks, ...names }).map(([list, differs]) => [list, differs[way]])) })
  return { added: texts('added'), removed: texts('removed'), changed: others }
}

/** `--json`: one event a line. */
export function jsonView(output: Output): CaptureView {
  let last = ''
  return {
    step: (text) => void output.json({ event: 'step', text }),
    ready: (ready) => {
      const { plan, backend, relayPort, redirects, session, took } = ready
      const taken = takenOf(ready)
      return output.json({ event: 'ready', backend, tcp: formatPorts(taken.tcp), udp: formatPorts(taken.udp), scope: plan.scope, redirects, relay: { address: listensAt(ready), port: relayPort }, session, took, plan })
    },
    opened: (flow) => output.json({ event: 'opened', flow }),
    ended: (flow) => output.json({ event: 'ended', flow }),
    seen: nothing,
    gate: ({ phase, recording, active, total, bytes }) => {
      if (last === `${phase} ${recording}`) return
      last = `${phase} ${recording}`
      void output.json({ event: 'gate', phase, recording, active, total, bytes })
    },
    changed: (difference, { plan, ends }) => output.json({ event: 'changed', ...changeEvent(difference), plan, ...(ends === undefined ? {} : { ends }) }),
    warning: (message) => void output.json({ event: 'warning', message }),
    note: (message) => output.note(`sluice: ${message}`),
    closed: ({ total, bytes, failure }, session) => output.json({ event: 'closed', flows: total, bytes, session, ...(failure === undefined ? {} : { failure }) }),
  }
}

/** Piped: READY, then a line for each flow that is over. */
export function lineView(output: Output): CaptureView {
  return {
    step: nothing,
    ready: (ready) => output.line(readyLine(ready)),
    opened: () => Promise.resolve(),
    ended: (row) => output.line(flowLine(row, Infinity)),
    seen: nothing,
    gate: nothing,
    changed: (difference, state) => output.line(changedLine(difference, state)),
    warning: (message) => output.note(`sluice: ${message}`),
    note: (message) => output.note(`sluice: ${message}`),
    closed: (state, session) => {
      output.note(summary(state, session))
      return Promise.resolve()
    },
  }
}

const redrawEvery = 200

/** On a terminal: the newest flows in place, below them how the gate stands. */
export function liveView(output: Output): CaptureView & { stop(): void } {
  const rows = new Map<number, FlowRow>()
  let state: GateState | undefined
  let drawn = 0
  let timer: NodeJS.Timeout | undefined
  let over = false

  const room = (): number => Math.max(3, output.height - 4)
  const status = (): string => {
    if (state === undefined) return ''
    const ports = state.plan === undefined ? '' : ` on ${formatPlanPorts(state.plan)}`
    const phase = { closed: 'Gate closed', opening: 'Opening', open: `Gate open${ports}`, draining: 'Draining: no new flows are taken; interrupt again to close at once', closing: 'Closing' }[state.phase]
    return `${phase} · ${state.active} active, ${counted(state.total, 'flow')}, ${formatBytes(state.bytes)}${state.recording === 'on' ? '' : ` · recording ${state.recording}`}`
  }
  const clear = (): string => (drawn === 0 ? '' : `\u001b[${drawn}A\r\u001b[J`)
  const table = (): string => {
    const lines = [flowHeader(output.width), ...[...rows.values()].map((row) => flowLine(row, output.width)), fit(status(), output.width).trimEnd()]
    drawn = lines.length
    return lines.map((line) => `${line}\n`).join('')
  }
  const draw = (): void => {
    timer = undefined
    void output.write(clear() + table())
  }
  const soon = (): void => {
    if (!over) timer ??= setTimeout(draw, redrawEvery)
  }
  /** A line above the table. */
  const say = (text: string): void => {
    const cleared = clear()
    drawn = 0
    void output.write(`${cleared}${printable(text)}\n`)
    if (state?.phase !== undefined && state.phase !== 'opening') void output.write(table())
  }
  const keep = (row: FlowRow): Promise<void> => {
    rows.set(row.id, row)
    // The oldest that is over gives way first, so that flows under way stay in sight.
    while (rows.size > room()) {
      const oldest = [...rows.values()].find((each) => each.state !== 'live') ?? rows.values().next().value
      if (oldest === undefined) break
      rows.delete(oldest.id)
    }
    soon()
    return Promise.resolve()
  }
  return {
    step: nothing,
    ready: (ready) => output.line(readyLine(ready)),
    opened: keep,
    ended: keep,
    seen: (row) => {
      if (rows.has(row.id)) void keep(row)
    },
    gate: (next) => {
      state = next
      if (next.phase !== 'opening') soon()
    },
    changed: (difference, state) => {
      say(changedLine(difference, state))
      return Promise.resolve()
    },
    warning: (message) => say(`sluice: ${message}`),
    note: (message) => say(`sluice: ${message}`),
    closed: async (closed, session) => {
      over = true
      clearTimeout(timer)
      state = closed
      await output.write(`${clear()}${table()}${printable(summary(closed, session))}\n`)
    },
    stop: () => {
      over = true
      clearTimeout(timer)
    },
  }
}
