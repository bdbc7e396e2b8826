import type { FlowRow } from '../flow/flow.ts'
import { scopes } from '../plan/plan.ts'

/**
 * `text`: any string. `number`: a plain number. `size`: bytes ("10k", "4 MiB" as 4MiB). `duration`: seconds ("200ms", "1.5s", "2m"). `time`: an
 * ISO date or epoch seconds. `address`: an address or a network in CIDR form. `flag`: yes or no, mostly used bare.
 */
export type FieldKind = 'text' | 'number' | 'size' | 'duration' | 'time' | 'address' | 'flag'

export interface Field {
  readonly name: string
  /** Other spellings, Wireshark's among them. */
  readonly aliases: readonly string[]
  readonly kind: FieldKind
  readonly about: string
  /** The only values it takes, where there is a short list of them. */
  readonly values?: readonly string[]
  /** A row's values; none when the flow has no such thing. A flag is [1] or []. */
  readonly read: (row: FlowRow) => readonly (string | number)[]
  /** The same in SQL over the table `flows`: one expression a value, NULL where there is none; absent: SQL cannot say it. */
  readonly sql?: readonly string[]
}

const some = <T extends string | number>(value: T | undefined): readonly T[] => (value === undefined ? [] : [value])
const flag = (value: boolean): readonly number[] => (value ? [1] : [])

/** Seconds since the epoch of decimal nanoseconds, to a microsecond. */
function seconds(nanoseconds: string): number {
  return Number(BigInt(nanoseconds) / 1000n) / 1e6
}
function duration(row: FlowRow): readonly number[] {
  if (row.endedAt === undefined) return []
  return [Number((BigInt(row.endedAt) - BigInt(row.startedAt)) / 1000n) / 1e6]
}

function portsOver(transport: FlowRow['transport'], row: FlowRow): readonly number[] {
  return row.transport === transport ? [row.client.port, row.server.port] : []
}

/** "198.51.100.2:80", "[2001:db8::1]:80". */
export function endpointText(endpoint: { readonly address: string; readonly port: number }): string {
  return endpoint.address.includes(':') ? `[${endpoint.address}]:${endpoint.port}` : `${endpoint.address}:${endpoint.port}`
}
/** URL of the flow's last request, as far as a row knows it. */
function url(row: FlowRow): readonly string[] {
  if (row.http === undefined) return []
  const { target } = row.http
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(target)) return [target]
  return [`http://${row.name ?? endpointText(row.server)}${target}`]
}

const failedStates: readonly string[] = ['client-reset', 'server-reset', 'refused', 'unreachable', 'timed-out', 'shed', 'failed']

export const fields: readonly Field[] = [
  { name: 'id', aliases: ['no', 'flow'], kind: 'number', about: 'number of the flow', read: (row) => [row.id], sql: ['id'] },
  { name: 'protocol', aliases: ['proto'], kind: 'text', about: 'what the flow turned out to be', values: ['http', 'tls', 'dns', 'quic', 'raw', 'empty'], read: (row) => [row.protocol], sql: ['protocol'] },
  { name: 'http', aliases: [], kind: 'flag', about: 'flows of HTTP/1', read: (row) => flag(row.protocol === 'http'), sql: [`nullif(protocol = 'http', 0)`] },
  { name: 'tls', aliases: ['ssl'], kind: 'flag', about: 'flows of TLS', read: (row) => flag(row.protocol === 'tls'), sql: [`nullif(protocol = 'tls', 0)`] },
  { name: 'raw', aliases: [], kind: 'flag', about: 'flows no dissector knows', read: (row) => flag(row.protocol === 'raw'), sql: [`nullif(protocol = 'raw', 0)`] },
  { name: 'dns', aliases: [], kind: 'flag', about: 'questions to name servers', read: (row) => flag(row.protocol === 'dns'), sql: [`nullif(protocol = 'dns', 0)`] },
  { name: 'quic', aliases: [], kind: 'flag', about: 'connections of QUIC', read: (row) => flag(row.protocol === 'quic'), sql: [`nullif(protocol = 'quic', 0)`] },
  { name: 'transport', aliases: [], kind: 'text', about: 'what carried it', values: ['tcp', 'udp'], read: (row) => [row.transport], sql: ['transport'] },
  { name: 'tcp', aliases: [], kind: 'flag', about: 'flows over TCP', read: (row) => flag(row.transport === 'tcp'), sql: [`nullif(transport = 'tcp', 0)`] },
  { name: 'udp', aliases: [], kind: 'flag', about: 'flows over UDP', read: (row) => flag(row.transport === 'udp'), sql: [`nullif(transport = 'udp', 0)`] },
  { name: 'scope', aliases: [], kind: 'text', about: 'whose flow it is', values: [...scopes], read: (row) => [row.scope], sql: ['scope'] },
  { name: 'local', aliases: [], kind: 'flag', about: 'flows of programs of this computer', read: (row) => flag(row.scope === 'local'), sql: [`nullif(scope = 'local', 0)`] },
  { name: 'forwarded', aliases: [], kind: 'flag', about: 'flows of devices and containers routed through', read: (row) => flag(row.scope === 'forwarded'), sql: [`nullif(scope = 'forwarded', 0)`] },
  { name: 'incoming', aliases: [], kind: 'flag', about: 'flows to services of this computer', read: (row) => flag(row.scope === 'incoming'), sql: [`nullif(scope = 'incoming', 0)`] },
  { name: 'client', aliases: ['client.address', 'src', 'ip.src', 'ipv6.src'], kind: 'address', about: 'address of who opened it', read: (row) => [row.client.address], sql: ['client_address'] },
  { name: 'client.port', aliases: ['srcport', 'tcp.srcport', 'udp.srcport'], kind: 'number', about: 'port of who opened it', read: (row) => [row.client.port], sql: ['client_port'] },
  { name: 'server', aliases: ['server.address', 'dst', 'ip.dst', 'ipv6.dst'], kind: 'address', about: 'address of the original destination', read: (row) => [row.server.address], sql: ['server_address'] },
  { name: 'port', aliases: ['server.port', 'dstport', 'tcp.dstport', 'udp.dstport'], kind: 'number', about: 'port of the original destination', read: (row) => [row.server.port], sql: ['server_port'] },
  { name: 'address', aliases: ['ip.addr', 'ipv6.addr', 'addr'], kind: 'address', about: 'address of either side', read: (row) => [row.client.address, row.server.address], sql: ['client_address', 'server_address'] },
  { name: 'tcp.port', aliases: [], kind: 'number', about: 'port of either side, of TCP flows', read: (row) => portsOver('tcp', row), sql: [`iif(transport = 'tcp', client_port, NULL)`, `iif(transport = 'tcp', server_port, NULL)`] },
  { name: 'udp.port', aliases: [], kind: 'number', about: 'port of either side, of UDP flows', read: (row) => portsOver('udp', row), sql: [`iif(transport = 'udp', client_port, NULL)`, `iif(transport = 'udp', server_port, NULL)`] },
  { name: 'name', aliases: ['host', 'http.host', 'domain', 'hostname'], kind: 'text', about: 'best known name of the server', read: (row) => some(row.name), sql: ['name'] },
  { name: 'process', aliases: ['program', 'process.name'], kind: 'text', about: 'program of this computer that opened it', read: (row) => some(row.process?.name), sql: ['process'] },
  { name: 'pid', aliases: ['process.pid'], kind: 'number', about: 'process number', read: (row) => some(row.process?.pid), sql: ['pid'] },
  { name: 'user', aliases: ['process.user'], kind: 'text', about: 'user the program ran as', read: (row) => some(row.process?.user), sql: ['user'] },
  {
    name: 'state', aliases: [], kind: 'text', about: 'how it stands or ended',
    values: ['live', 'unfinished', 'finished', 'client-reset', 'server-reset', 'refused', 'unreachable', 'timed-out', 'gate-closed', 'shed', 'failed', 'idle'],
    read: (row) => [row.state], sql: ['state'],
  },
  { name: 'live', aliases: [], kind: 'flag', about: 'flows still open', read: (row) => flag(row.state === 'live'), sql: [`nullif(state = 'live', 0)`] },
  {
    name: 'error', aliases: ['errored'], kind: 'flag', about: 'flows that ended by a reset, a refusal, a time-out or a failure',
    read: (row) => flag(failedStates.includes(row.state)), sql: [`nullif(state in (${failedStates.map((state) => `'${state}'`).join(', ')}), 0)`],
  },
  { name: 'closedby', aliases: ['closed.by'], kind: 'text', about: 'who closed it first', values: ['client', 'server', 'gate', 'none'], read: (row) => [row.closedBy], sql: ['closed_by'] },
  { name: 'bytes', aliases: ['size'], kind: 'size', about: 'bytes of both directions', read: (row) => [row.bytesUp + row.bytesDown], sql: ['(bytes_up + bytes_down)'] },
  { name: 'up', aliases: ['bytes.up', 'bytesup'], kind: 'size', about: 'bytes from client to server', read: (row) => [row.bytesUp], sql: ['bytes_up'] },
  { name: 'down', aliases: ['bytes.down', 'bytesdown'], kind: 'size', about: 'bytes from server to client', read: (row) => [row.bytesDown], sql: ['bytes_down'] },
  { name: 'lost', aliases: ['bytes.lost', 'byteslost'], kind: 'size', about: 'bytes relayed whose content is not in the record', read: (row) => [row.bytesLost], sql: ['bytes_lost'] },
  { name: 'datagrams', aliases: [], kind: 'number', about: 'datagrams of both directions, of UDP flows', read: (row) => some(row.datagramsUp === undefined ? undefined : row.datagramsUp + (row.datagramsDown ?? 0)), sql: ['(datagrams_up + datagrams_down)'] },
  { name: 'duration', aliases: ['took'], kind: 'duration', about: 'from first to last, of flows that ended', read: duration },
  { name: 'started', aliases: ['time', 'frame.time'], kind: 'time', about: 'when it began', read: (row) => [seconds(row.startedAt)] },
  { name: 'info', aliases: [], kind: 'text', about: 'the line of the list', read: (row) => [row.info], sql: ['info'] },
  { name: 'method', aliases: ['http.request.method', 'http.method'], kind: 'text', about: 'method of the last request', read: (row) => some(row.http?.method), sql: ['method'] },
  { name: 'target', aliases: ['http.request.uri', 'uri', 'path'], kind: 'text', about: 'target of the last request', read: (row) => some(row.http?.target), sql: ['target'] },
  { name: 'url', aliases: ['http.request.full_uri'], kind: 'text', about: 'URL of the last request', read: url },
  { name: 'status', aliases: ['code', 'http.response.code', 'http.status'], kind: 'number', about: 'status of the last response', read: (row) => some(row.http?.status), sql: ['status'] },
  { name: 'exchanges', aliases: ['requests'], kind: 'number', about: 'count of requests in the flow', read: (row) => some(row.http?.exchanges), sql: ['exchanges'] },
  { name: 'sni', aliases: ['tls.sni', 'quic.sni', 'tls.handshake.extensions_server_name'], kind: 'text', about: 'name the hello of TLS or QUIC asked for', read: (row) => some(row.tls?.sni ?? row.quic?.sni), sql: ['sni'] },
  { name: 'quic.version', aliases: [], kind: 'text', about: 'version of QUIC', read: (row) => some(row.quic?.version), sql: ['quic_version'] },
  { name: 'dns.qname', aliases: ['dns.qry.name', 'qname', 'dns.name'], kind: 'text', about: 'name last asked for', read: (row) => some(row.dns?.name), sql: ['qname'] },
  { name: 'dns.qtype', aliases: ['dns.qry.type', 'qtype', 'dns.type'], kind: 'text', about: 'kind of record last asked for', read: (row) => some(row.dns?.type), sql: ['qtype'] },
  { name: 'dns.rcode', aliases: ['dns.flags.rcode', 'rcode'], kind: 'text', about: 'what the name server answered: NOERROR, NXDOMAIN, …', read: (row) => some(row.dns?.rcode), sql: ['rcode'] },
  { name: 'dns.questions', aliases: [], kind: 'number', about: 'count of questions in the flow', read: (row) => some(row.dns?.transactions), sql: ['questions'] },
  { name: 'alpn', aliases: ['tls.alpn'], kind: 'text', about: 'protocol the TLS server chose', read: (row) => some(row.tls?.alpn), sql: ['alpn'] },
  { name: 'version', aliases: ['tls.version'], kind: 'text', about: 'TLS version', read: (row) => some(row.tls?.version), sql: ['version'] },
  { name: 'undecodable', aliases: ['malformed', '_ws.malformed'], kind: 'flag', about: 'flows a dissector gave up on', read: (row) => flag(row.undecodable), sql: ['nullif(undecodable, 0)'] },
]

const byName = new Map<string, Field>(fields.flatMap((field) => [field.name, ...field.aliases].map((name) => [name, field] as const)))

/** By name or other spelling, whatever the case. */
export function findField(name: string): Field | undefined {
  return byName.get(name.toLowerCase())
}
/** By canonical name, as it stands in a node. */
export function fieldOf(name: string): Field {
  const field = byName.get(name)
  if (field === undefined) throw new Error(`no field ${name}`)
  return field
}
