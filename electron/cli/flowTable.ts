import { endpointText } from '#core/filter/fields.ts'
import type { FlowRow } from '#core/flow/flow.ts'
import { formatBytes, formatClock, formatDuration } from './format.ts'
import { fit, printable } from './printable.ts'

interface Column {
  readonly title: string
  readonly width: number
  readonly right?: boolean
  readonly text: (row: FlowRow) => string
}

/** What nobody knows is named by what carried it. */
function protocolText({ protocol, transport }: FlowRow): string {
  if (protocol === 'raw') return transport === 'udp' ? 'UDP' : 'raw'
  return protocol === 'empty' ? 'empty' : protocol.toUpperCase()
}

export const columns: readonly Column[] = [
  { title: 'No.', width: 6, right: true, text: (row) => String(row.id) },
  { title: 'Time', width: 12, text: (row) => formatClock(row.startedAt) },
  { title: 'Program', width: 15, text: (row) => row.process?.name ?? (row.scope === 'local' ? '' : row.client.address) },
  { title: 'Protocol', width: 8, text: protocolText },
  { title: 'Server', width: 28, text: (row) => (row.name === undefined ? endpointText(row.server) : `${row.name}:${row.server.port}`) },
  { title: 'Up', width: 8, right: true, text: (row) => formatBytes(row.bytesUp) },
  { title: 'Down', width: 8, right: true, text: (row) => formatBytes(row.bytesDown) },
  { title: 'Duration', width: 9, right: true, text: (row) => (row.endedAt === undefined ? '' : formatDuration(row.startedAt, row.endedAt)) },
  { title: 'State', width: 12, text: (row) => row.state },
]

/** The info column takes what is left of the width; piped output is not cut. */
function line(cells: readonly string[], info: string, width: number): string {
  const left = cells.join('  ')
  const room = width === Infinity ? Infinity : width - left.length - 2
  return room === Infinity ? `${left}  ${info}`.trimEnd() : room >= 8 ? `${left}  ${fit(info, room).trimEnd()}` : fit(left, width).trimEnd()
}

export function flowHeader(width: number): string {
  return line(columns.map((column) => fit(column.title, column.width, column.right)), 'Info', width)
}

/** One row; everything captured in it is made safe here. */
export function flowLine(row: FlowRow, width: number): string {
  return line(columns.map((column) => fit(printable(column.text(row)), column.width, column.right)), printable(row.info), width)
}
