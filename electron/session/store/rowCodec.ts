import type { SqlRow, SqlValue } from './database.ts'
import type { FlowDetails, FlowRow, TlsFacts } from '#core/flow/flow.ts'

/** What FlowDetails says beyond the row, kept as JSON. */
export type FlowMore = Pick<FlowDetails, 'process' | 'upstream' | 'connectedAt' | 'firstUpAt' | 'firstDownAt' | 'decodeError'>

const columns = [
  'id', 'protocol', 'scope', 'client_address', 'client_port', 'server_address', 'server_port', 'name', 'pid', 'process', 'user', 'started_at',
  'ended_at', 'state', 'closed_by', 'bytes_up', 'bytes_down', 'bytes_lost', 'info', 'method', 'target', 'status', 'exchanges', 'sni', 'alpn',
  'version', 'undecodable', 'tls', 'more',
] as const

export const insertFlow = `INSERT OR REPLACE INTO flows (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})`

/** Times as text: they do not fit a double. */
export const rowColumns = columns
  .filter((column) => !['more', 'sni', 'alpn', 'version'].includes(column))
  .map((column) => (column === 'started_at' || column === 'ended_at' ? `CAST(${column} AS TEXT) AS ${column}` : column))
  .join(', ')

export function encodeRow(row: FlowRow, more: FlowMore): SqlValue[] {
  const { http, tls } = row
  return [
    row.id, row.protocol, row.scope, row.client.address, row.client.port, row.server.address, row.server.port, row.name ?? null,
    row.process?.pid ?? null, row.process?.name ?? null, row.process?.user ?? null, BigInt(row.startedAt),
    row.endedAt === undefined ? null : BigInt(row.endedAt), row.state, row.closedBy, row.bytesUp, row.bytesDown, row.bytesLost, row.info,
    http?.method ?? null, http?.target ?? null, http?.status ?? null, http?.exchanges ?? null, tls?.sni ?? null, tls?.alpn ?? null,
    tls?.version ?? null, row.undecodable ? 1 : 0, tls === undefined ? null : JSON.stringify(tls), JSON.stringify(more),
  ]
}

export function decodeRow(row: SqlRow): FlowRow {
  const text = (key: string): string => row[key] as string
  const number = (key: string): number => row[key] as number
  return {
    id: number('id'),
    transport: 'tcp',
    protocol: text('protocol') as FlowRow['protocol'],
    scope: text('scope') as FlowRow['scope'],
    client: { address: text('client_address'), port: number('client_port') },
    server: { address: text('server_address'), port: number('server_port') },
    ...(row['name'] === null ? {} : { name: text('name') }),
    ...(row['pid'] === null ? {} : { process: { pid: number('pid'), name: text('process'), user: text('user') } }),
    startedAt: text('started_at'),
    ...(row['ended_at'] === null ? {} : { endedAt: text('ended_at') }),
    state: text('state') as FlowRow['state'],
    closedBy: text('closed_by') as FlowRow['closedBy'],
    bytesUp: number('bytes_up'),
    bytesDown: number('bytes_down'),
    bytesLost: number('bytes_lost'),
    info: text('info'),
    ...(row['method'] === null
      ? {}
      : { http: { method: text('method'), target: text('target'), exchanges: number('exchanges'), ...(row['status'] === null ? {} : { status: number('status') }) } }),
    ...(row['tls'] === null ? {} : { tls: JSON.parse(text('tls')) as TlsFacts }),
    undecodable: row['undecodable'] === 1,
  }
}
