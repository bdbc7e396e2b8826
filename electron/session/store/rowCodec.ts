import type { SqlRow, SqlValue } from './database.ts'
import type { FlowDetails, FlowRow, QuicFacts, TlsFacts } from '#core/flow/flow.ts'

/** What FlowDetails says beyond the row, kept as JSON. */
export type FlowMore = Pick<FlowDetails, 'process' | 'upstream' | 'via' | 'legs' | 'connectedAt' | 'firstUpAt' | 'firstDownAt' | 'decodeError' | 'dns' | 'datagramsDropped'>

const columns = [
  'id', 'transport', 'protocol', 'scope', 'client_address', 'client_port', 'server_address', 'server_port', 'name', 'pid', 'process', 'user', 'started_at',
  'ended_at', 'state', 'closed_by', 'bytes_up', 'bytes_down', 'bytes_lost', 'datagrams_up', 'datagrams_down', 'info', 'method', 'target', 'status', 'exchanges', 'sni', 'alpn',
  'version', 'undecodable', 'tls', 'dns', 'qname', 'qtype', 'rcode', 'questions', 'quic', 'quic_version', 'more',
] as const

export const insertFlow = `INSERT OR REPLACE INTO flows (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})`

/** Times as text: they do not fit a double. */
export const rowColumns = columns
  .filter((column) => !['more', 'sni', 'alpn', 'version', 'qname', 'qtype', 'rcode', 'questions', 'quic_version'].includes(column))
  .map((column) => (column === 'started_at' || column === 'ended_at' ? `CAST(${column} AS TEXT) AS ${column}` : column))
  .join(', ')

export function encodeRow(row: FlowRow, more: FlowMore): SqlValue[] {
  const { http, tls, dns, quic } = row
  return [
    row.id, row.transport, row.protocol, row.scope, row.client.address, row.client.port, row.server.address, row.server.port, row.name ?? null,
    row.process?.pid ?? null, row.process?.name ?? null, row.process?.user ?? null, BigInt(row.startedAt),
    row.endedAt === undefined ? null : BigInt(row.endedAt), row.state, row.closedBy, row.bytesUp, row.bytesDown, row.bytesLost, row.datagramsUp ?? null, row.datagramsDown ?? null, row.info,
    http?.method ?? null, http?.target ?? null, http?.status ?? null, http?.exchanges ?? null, tls?.sni ?? quic?.sni ?? null, tls?.alpn ?? null,
    tls?.version ?? null, row.undecodable ? 1 : 0, tls === undefined ? null : JSON.stringify(tls),
    dns === undefined ? null : JSON.stringify(dns), dns?.name ?? null, dns?.type ?? null, dns?.rcode ?? null, dns?.transactions ?? null,
    quic === undefined ? null : JSON.stringify(quic), quic?.version ?? null, JSON.stringify(more),
  ]
}

export function decodeRow(row: SqlRow): FlowRow {
  const text = (key: string): string => row[key] as string
  const number = (key: string): number => row[key] as number
  return {
    id: number('id'),
    transport: text('transport') as FlowRow['transport'],
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
    ...(row['datagrams_up'] === null ? {} : { datagramsUp: number('datagrams_up'), datagramsDown: number('datagrams_down') }),
    bytesLost: number('bytes_lost'),
    info: text('info'),
    ...(row['method'] === null
      ? {}
      : { http: { method: text('method'), target: text('target'), exchanges: number('exchanges'), ...(row['status'] === null ? {} : { status: number('status') }) } }),
    ...(row['tls'] === null ? {} : { tls: JSON.parse(text('tls')) as TlsFacts }),
    ...(row['dns'] === null ? {} : { dns: JSON.parse(text('dns')) as NonNullable<FlowRow['dns']> }),
    ...(row['quic'] === null ? {} : { quic: JSON.parse(text('quic')) as QuicFacts }),
    undecodable: row['undecodable'] === 1,
  }
}
