import type { FlowProtocol, FlowRow, FlowState } from '#core/flow/flow.ts'

/** How a row is tinted: failures first, then by protocol, as Wireshark does it. Never by colour alone: badge and state say the same in words. */
export type RowTone = 'http' | 'tls' | 'raw' | 'warn' | 'error'
/** Shape that stands before the state's words. */
export type StateShape = 'dot' | 'tick' | 'cross' | 'barred' | 'open' | 'cut'

export const protocolNames: Readonly<Record<FlowProtocol, string>> = { http: 'HTTP', tls: 'TLS', dns: 'DNS', quic: 'QUIC', raw: 'raw', empty: 'empty' }

export const stateWords: Readonly<Record<FlowState, string>> = {
  live: 'live',
  unfinished: 'unfinished',
  finished: 'finished',
  'client-reset': 'client reset',
  'server-reset': 'server reset',
  refused: 'refused',
  unreachable: 'unreachable',
  'timed-out': 'timed out',
  'gate-closed': 'cut by gate',
  shed: 'shed',
  failed: 'failed',
  idle: 'fell silent',
}
export const stateShapes: Readonly<Record<FlowState, StateShape>> = {
  live: 'dot',
  unfinished: 'open',
  finished: 'tick',
  'client-reset': 'cross',
  'server-reset': 'cross',
  refused: 'barred',
  unreachable: 'barred',
  'timed-out': 'barred',
  'gate-closed': 'cut',
  shed: 'cut',
  failed: 'cross',
  idle: 'tick',
}
/** What each state means, in a sentence. */
export const stateSentences: Readonly<Record<FlowState, string>> = {
  live: 'Still open.',
  unfinished: 'The recording ended before the flow did.',
  finished: 'Both sides closed in good order.',
  'client-reset': 'The client reset the connection.',
  'server-reset': 'The server reset the connection.',
  refused: 'The server refused the connection.',
  unreachable: 'The server could not be reached.',
  'timed-out': 'The server did not answer in time.',
  'gate-closed': 'The gate was closed at once and cut it.',
  shed: 'The relay was full and let it go.',
  failed: 'The relay could not carry it.',
  idle: 'Nothing was said any more: the ordinary end of a flow of UDP.',
}

export function isFailed(state: FlowState): boolean {
  return state === 'client-reset' || state === 'server-reset' || state === 'refused' || state === 'unreachable' || state === 'timed-out' || state === 'failed' || state === 'shed'
}

export function rowTone(row: FlowRow): RowTone {
  const status = row.http?.status ?? 0
  if (isFailed(row.state) || status >= 500) return 'error'
  if (status >= 400 || row.state === 'gate-closed' || row.undecodable) return 'warn'
  return row.protocol === 'http' ? 'http' : row.protocol === 'tls' || row.protocol === 'quic' ? 'tls' : 'raw'
}

/** Class of a status as HTTP Toolkit colours it. */
export function statusTone(status: number): 'ok' | 'redirect' | 'warn' | 'error' | 'info' {
  return status >= 500 ? 'error' : status >= 400 ? 'warn' : status >= 300 ? 'redirect' : status >= 200 ? 'ok' : 'info'
}
