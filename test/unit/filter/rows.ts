import fc from 'fast-check'

import { scopes } from '#core/plan/plan.ts'
import type { FlowProtocol, FlowRow, FlowState } from '#core/flow/flow.ts'

export function makeRow(change: Partial<FlowRow> = {}): FlowRow {
  return {
    id: 1, transport: 'tcp', protocol: 'http', scope: 'local',
    client: { address: '198.51.100.2', port: 40000 }, server: { address: '203.0.113.2', port: 80 },
    name: 'www.example.test', process: { pid: 12, name: 'curl', user: 'dev' },
    startedAt: '1764046800000000000', endedAt: '1764046801500000000', state: 'finished', closedBy: 'client',
    bytesUp: 78, bytesDown: 12_000, bytesLost: 0, info: 'GET /index.html → 200 OK',
    http: { method: 'GET', target: '/index.html', status: 200, exchanges: 1 }, undecodable: false,
    ...change,
  }
}

const text = fc.oneof(fc.string({ maxLength: 12, unit: 'binary' }), fc.constantFrom('curl', 'CURL', 'Firefox', 'é', 'É', '%', '_', '/a?b=c', ''))
const address = fc.constantFrom('198.51.100.2', '203.0.113.9', '2001:db8::1', '2001:db8:1::ff', '::ffff:198.51.100.2', '127.0.0.1')
const port = fc.oneof(fc.constantFrom(1, 80, 443, 8080, 65535), fc.integer({ min: 1, max: 65535 }))

/** Rows of every shape; strings are what a stranger may send. */
export const anyRow: fc.Arbitrary<FlowRow> = fc
  .record({
    id: fc.integer({ min: 1, max: 1000 }),
    protocol: fc.constantFrom<FlowProtocol>('http', 'tls', 'dns', 'quic', 'raw', 'empty'),
    transport: fc.constantFrom<'tcp' | 'udp'>('tcp', 'udp'),
    datagramsUp: fc.option(fc.nat(9), { nil: undefined }),
    dns: fc.option(fc.record({ name: text, type: fc.constantFrom('A', 'AAAA'), rcode: fc.option(fc.constantFrom('NOERROR', 'NXDOMAIN'), { nil: undefined }), transactions: fc.nat(3) }), { nil: undefined }),
    quic: fc.option(fc.record({ version: fc.constant('QUIC 1'), sni: fc.option(text, { nil: undefined }) }), { nil: undefined }),
    scope: fc.constantFrom(...scopes),
    client: fc.record({ address, port }),
    server: fc.record({ address, port }),
    name: fc.option(text, { nil: undefined }),
    process: fc.option(fc.record({ pid: fc.integer({ min: 0, max: 99 }), name: text, user: text }), { nil: undefined }),
    endedAt: fc.option(fc.constant('1764046801500000000'), { nil: undefined }),
    state: fc.constantFrom<FlowState>('live', 'finished', 'refused', 'unfinished', 'client-reset'),
    bytesUp: fc.nat(5000), bytesDown: fc.nat(5000), bytesLost: fc.nat(3),
    info: text,
    http: fc.option(fc.record({ method: fc.constantFrom('GET', 'POST', 'get'), target: text, status: fc.option(fc.integer({ min: 100, max: 599 }), { nil: undefined }), exchanges: fc.nat(5) }), { nil: undefined }),
    tls: fc.option(fc.record({ sni: fc.option(text, { nil: undefined }), alpn: fc.option(fc.constantFrom('h2', 'http/1.1'), { nil: undefined }), version: fc.constantFrom('TLS 1.2', 'TLS 1.3') }), { nil: undefined }),
    undecodable: fc.boolean(),
  })
  .map((made) => {
    const full = {
      ...made, datagramsDown: made.datagramsUp === undefined ? undefined : 2, dns: made.dns === undefined ? undefined : without(made.dns),
      quic: made.quic === undefined ? undefined : { destinationId: '00', sourceId: '', alpnOffered: [], ...without(made.quic) }, startedAt: '1764046800000000000', closedBy: 'client', tls: made.tls === undefined ? undefined : { alpnOffered: [], versionOffered: false, ...without(made.tls) },
    }
    return without({ ...full, http: made.http === undefined ? undefined : without(made.http) }) as unknown as FlowRow
  })

function without<T extends object>(thing: T): T {
  return Object.fromEntries(Object.entries(thing).filter(([, value]) => value !== undefined)) as T
}
