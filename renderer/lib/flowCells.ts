import type { FlowRow } from '#core/flow/flow.ts'
import type { ColumnId } from '#ui/state/columns.svelte.ts'
import { protocolNames, stateWords } from './flowLook.ts'
import { formatBytes, formatClock, formatDuration, formatEndpoint, millisecondsBetween } from './format.ts'
import { printable } from './printable.ts'

/** The server's name when it has one; a Host header that merely repeats the address, with or without its interface (curl leaves that out), names nothing. */
export function nameOf({ name, server: { address } }: FlowRow): string | undefined {
  return name === address || name === address.split('%')[0] ? undefined : name
}

/** What a cell says, as plain text: for the list, for titles and for what is copied. */
export function cellText(row: FlowRow, column: ColumnId): string {
  switch (column) {
    case 'id':
      return String(row.id)
    case 'time':
      return formatClock(row.startedAt)
    case 'program':
      return row.process === undefined ? (row.scope === 'local' ? '' : row.client.address) : row.process.name
    case 'protocol':
      return row.protocol === 'tls' ? (row.tls?.version ?? 'TLS') : row.protocol === 'raw' && row.transport === 'udp' ? 'UDP' : protocolNames[row.protocol]
    case 'transport':
      return row.transport.toUpperCase()
    case 'server':
      return row.name ?? row.server.address
    case 'port':
      return String(row.server.port)
    case 'info':
      return row.info
    case 'up':
      return formatBytes(row.bytesUp)
    case 'down':
      return formatBytes(row.bytesDown)
    case 'duration': {
      const took = millisecondsBetween(row.startedAt, row.endedAt)
      return took === undefined ? '' : formatDuration(took)
    }
    case 'state':
      return stateWords[row.state]
  }
}

/** URL of the flow's last request; undefined for what is no HTTP. */
export function urlOf(row: FlowRow): string | undefined {
  if (row.http === undefined) return undefined
  const { target } = row.http
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(target)) return target
  const known = row.name ?? row.server.address
  const name = known.includes(':') ? `[${known}]` : known
  return `http://${name}${row.server.port === 80 ? '' : `:${row.server.port}`}${target.startsWith('/') ? target : '/'}`
}

/** One line about the flow, to paste into a message. */
export function summaryOf(row: FlowRow): string {
  const who = row.process === undefined ? formatEndpoint(row.client) : `${row.process.name} (${row.process.pid}, ${row.process.user})`
  const server = nameOf(row) === undefined ? formatEndpoint(row.server) : `${nameOf(row) ?? ''} (${formatEndpoint(row.server)})`
  const took = cellText(row, 'duration')
  return printable(
    `#${row.id} ${cellText(row, 'time')} ${who} → ${server} ${cellText(row, 'protocol')} ${row.info} ↑${formatBytes(row.bytesUp)} ↓${formatBytes(row.bytesDown)}${took === '' ? '' : ` ${took}`} ${stateWords[row.state]}`,
  )
}
