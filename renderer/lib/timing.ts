import type { FlowDetails, HttpExchange, Nanoseconds } from '#core/flow/flow.ts'

export type Phase = 'connect' | 'request' | 'wait' | 'receive' | 'open'
export interface PhaseBar {
  readonly phase: Phase
  /** Milliseconds from the beginning of the flow. */
  readonly from: number
  readonly to: number
}
export interface TimingLine {
  readonly title: string
  readonly bars: readonly PhaseBar[]
}
export interface Timing {
  readonly lines: readonly TimingLine[]
  /** Milliseconds that the whole takes. */
  readonly length: number
}
export const phaseNames: Readonly<Record<Phase, string>> = { connect: 'Connect', request: 'Request', wait: 'Wait', receive: 'Receive', open: 'Open' }

/** Phases of a flow against one clock: connecting, then each exchange's request, wait and answer; without exchanges, the first bytes each way. */
export function timingOf({ row, connectedAt, firstUpAt, firstDownAt }: FlowDetails, exchanges: readonly HttpExchange[]): Timing {
  const zero = BigInt(row.startedAt)
  const at = (time: Nanoseconds) => Math.max(0, Number(BigInt(time) - zero) / 1e6)
  const lines: TimingLine[] = []
  const bar = (phase: Phase, from: Nanoseconds | undefined, to: Nanoseconds | undefined): PhaseBar[] => (from === undefined || to === undefined ? [] : [{ phase, from: at(from), to: Math.max(at(from), at(to)) }])
  lines.push({ title: 'Connect', bars: bar('connect', row.startedAt, connectedAt ?? row.endedAt) })
  if (exchanges.length > 0) {
    for (const { request, response } of exchanges) {
      lines.push({
        title: `${request.method} ${request.target}`,
        bars: [
          ...bar('request', request.startedAt, request.endedAt ?? response?.startedAt),
          ...bar('wait', request.endedAt, response?.startedAt),
          ...bar('receive', response?.startedAt, response?.endedAt ?? row.endedAt),
        ],
      })
    }
  } else {
    lines.push({ title: 'Client’s first byte', bars: bar('request', connectedAt, firstUpAt) })
    lines.push({ title: 'Server’s first byte', bars: bar('wait', firstUpAt !== undefined && firstDownAt !== undefined && BigInt(firstUpAt) < BigInt(firstDownAt) ? firstUpAt : connectedAt, firstDownAt) })
    lines.push({ title: 'Open', bars: bar('open', connectedAt, row.endedAt) })
  }
  const ends = lines.flatMap(({ bars }) => bars.map(({ to }) => to))
  const length = Math.max(row.endedAt === undefined ? 0 : at(row.endedAt), ...ends, 0.001)
  return { lines: lines.filter(({ bars }) => bars.length > 0), length }
}
