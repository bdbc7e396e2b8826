import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import dnsPacket from 'dns-packet'
import { afterEach, beforeEach, expect, test } from 'vitest'

import type { SessionSummary } from '#core/contract/inspectorProtocol.ts'
import { Session } from '#session/session.ts'
import { buildCapture } from '#test/support/captureFixture.ts'
import type { CaptureFixture } from '#test/support/captureFixture.ts'

let home: string
let saved: NodeJS.ProcessEnv
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'sluice-session-'))
  saved = { ...process.env }
  process.env['XDG_STATE_HOME'] = join(home, 'state')
  process.env['XDG_CACHE_HOME'] = join(home, 'cache')
})
afterEach(() => {
  process.env = saved
  rmSync(home, { recursive: true, force: true })
})

function writeSession(capture: CaptureFixture | Uint8Array, name = 'x.sluice'): string {
  const folder = join(home, name)
  mkdirSync(folder, { mode: 0o700 })
  writeFileSync(join(folder, 'session.json'), JSON.stringify({ format: 1, tool: 'sluice', version: '0.1.0', startedAt: '2025-11-25T00:00:00Z', plan: null, payload: true }))
  writeFileSync(join(folder, 'capture-000001.pcapng'), capture instanceof Uint8Array ? capture : capture.bytes())
  return folder
}
async function openWhole(folder: string): Promise<{ session: Session; summary: SessionSummary }> {
  const session = Session.open(folder, false, { changed: () => undefined })
  return { session, summary: await session.finish() }
}

test('flows, details, stream and bodies of a fixture', async () => {
  const capture = buildCapture()
  const text = 'hello '.repeat(5000)
  const zipped = gzipSync(text)
  const id = capture.opened()
  capture.process(id).connected(id)
  capture.data(id, 'up', 'POST /form HTTP/1.1\r\nHost: example.test\r\nContent-Length: 5\r\n\r\na=b&c')
  capture.data(id, 'down', Buffer.concat([Buffer.from(`HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: text/plain\r\nContent-Length: ${zipped.length}\r\n\r\n`), zipped]))
  capture.finished(id, 'up').finished(id, 'down').closed(id)
  const raw = capture.opened({ server: { address: '2001:db8::9', port: 22 }, client: { address: '2001:db8::1', port: 999 }, scope: 'forwarded' })
  capture.connected(raw).data(raw, 'down', 'SSH-2.0-\u001b[31mx\r\n').gap(raw, 'down', 1000).data(raw, 'down', 'tail').closed(raw, 'server-reset', 'server')
  const { session, summary } = await openWhole(writeSession(capture))
  expect(summary).toMatchObject({ flows: 2, live: 0, notes: [], bytesLost: 1000 })
  expect(summary.read).toBe(summary.size)
  const page = await session.flowPage({ filter: '', sort: 'id', descending: false }, 0, 10)
  expect(page).toMatchObject({ total: 2, matching: 2 })
  expect(page.rows[0]).toMatchObject({ id: 1, protocol: 'http', name: 'example.test', info: 'POST /form → 200 OK', process: { pid: 4242, name: 'curl' }, state: 'finished', closedBy: 'client' })
  expect(page.rows[1]).toMatchObject({ id: 2, protocol: 'raw', scope: 'forwarded', state: 'server-reset', bytesLost: 1000, undecodable: false })
  expect(page.rows[1]!.info).toBe('raw: 1020 bytes, server began “SSH-2.0-\\x1b[31mx\\r\\n”')
  const body = await session.bodyPage(1, 0, 'response', true, 6, 5)
  expect(Buffer.from(body.bytes, 'base64').toString()).toBe('hello')
  expect(body).toMatchObject({ total: text.length, encoding: 'gzip', contentType: 'text/plain' })
  const wire = await session.bodyPage(1, 0, 'response', false, 0, 1 << 20)
  expect(Buffer.from(wire.bytes, 'base64')).toEqual(zipped)
  expect(Buffer.concat([...session.readBody(1, 0, 'response', true)].map((part) => part.bytes)).toString()).toBe(text)
  expect(session.streamPage(2, 'both', 0, 100).chunks.map((chunk) => [chunk.direction, chunk.offset, chunk.length, chunk.bytes === undefined])).toEqual([
    ['down', 0, 16, false], ['down', 16, 1000, true], ['down', 1016, 4, false],
  ])
  expect(session.details(2).gaps).toEqual([{ direction: 'down', offset: 16, bytes: 1000, reason: 'slow' }])
  expect(session.details(1).exchanges[0]).toMatchObject({ request: { url: 'http://example.test/form' }, response: { status: 200 } })
  expect((await session.flowPage({ filter: 'port == 22', sort: 'bytesDown', descending: true }, 0, 10)).rows.map((row) => row.id)).toEqual([2])
  expect((await session.flowPage({ filter: 'server == 203.0.113.0/24', sort: 'info', descending: true }, 0, 10)).rows.map((row) => row.id)).toEqual([1])
  expect([...session.flows('server == 2001:db8::/32')].map((row) => row.id)).toEqual([2])
  await session.close()
})

test('an index that was sealed is used again, with the same answers', async () => {
  const capture = buildCapture()
  capture.exchange('GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n', 'HTTP/1.1 204 No Content\r\n\r\n')
  const folder = writeSession(capture)
  const first = await openWhole(folder)
  const rows = [...first.session.flows('')]
  await first.session.close()
  const again = Session.open(folder, false, { changed: () => undefined })
  // Nothing has been read yet by this one.
  expect(again.summary()).toEqual(first.summary)
  expect([...again.flows('')]).toEqual(rows)
  await again.close()
})

test('flows of UDP: datagrams with their boundaries, empty ones too, counts exact, questions and answers kept', async () => {
  const capture = buildCapture()
  const client = { address: '2001:db8::1', port: 4000 }
  const server = { address: '2001:db8::9', port: 5000 }
  const raw = capture.opened({ transport: 'udp', client, server, scope: 'forwarded' })
  // The same four numbers over TCP at the same time are another flow.
  const tcp = capture.opened({ client, server })
  const big = new Uint8Array(65_507).fill(66)
  capture.connected(raw).datagram(raw, 'up', 'one').datagram(raw, 'up', '').datagram(raw, 'down', 'two').connected(tcp).data(tcp, 'up', 'stream')
  capture.gap(raw, 'up', 500, 'slow', 4).gap(raw, 'up', 0, 'slow', 1).datagram(raw, 'down', big).datagram(raw, 'down', '').closed(raw, 'idle', 'none').closed(tcp)
  const asked = capture.opened({ transport: 'udp', client: { address: '198.51.100.2', port: 5555 }, server: { address: '203.0.113.2', port: 53 } })
  capture.datagram(asked, 'up', dnsPacket.encode({ type: 'query', id: 1, questions: [{ type: 'A', name: 'Www.example.test' }] }))
  capture.datagram(asked, 'down', dnsPacket.encode({ type: 'response', id: 1, flags: 3, questions: [{ type: 'A', name: 'Www.example.test' }] })).closed(asked, 'idle', 'none')
  const refused = capture.opened({ transport: 'udp', client: { address: '198.51.100.2', port: 5556 }, server: { address: '203.0.113.2', port: 443 } })
  capture.datagram(refused, 'up', 'let me in').closed(refused, 'refused', 'gate')
  const { session, summary } = await openWhole(writeSession(capture))
  expect(summary).toMatchObject({ flows: 4, live: 0, notes: [], bytesLost: 500 })
  const [first, second, third, fourth] = [...session.flows('')]
  expect(first).toMatchObject({ transport: 'udp', protocol: 'raw', state: 'idle', bytesUp: 503, bytesDown: 65_510, datagramsUp: 7, datagramsDown: 3, bytesLost: 500 })
  expect(second).toMatchObject({ transport: 'tcp', bytesUp: 6, bytesDown: 0 })
  expect(second).not.toHaveProperty('datagramsUp')
  expect(third).toMatchObject({ protocol: 'dns', dns: { name: 'Www.example.test', type: 'A', rcode: 'NXDOMAIN', transactions: 1 }, info: 'A Www.example.test → NXDOMAIN, 1.0 ms' })
  expect(fourth?.info).toBe('raw: 1 datagram, 9 bytes, client began “let me in”, refused by the gate')
  expect(session.details(3).dns).toMatchObject([{ id: 1, name: 'Www.example.test', rcode: 'NXDOMAIN' }])
  const { chunks, total } = session.streamPage(1, 'both', 0, 4)
  // A page ends with a whole datagram, however long.
  expect(chunks.map((chunk) => [chunk.direction, chunk.length, chunk.bytes === undefined])).toEqual([['up', 3, false], ['up', 0, false], ['down', 3, false]])
  const rest = session.streamPage(1, 'both', 6, 1000).chunks
  expect(rest.map((chunk) => [chunk.direction, chunk.length, chunk.bytes === undefined])).toEqual([['up', 500, true], ['down', 65_507, false]])
  expect(Buffer.from(rest[1]!.bytes!, 'base64')).toEqual(Buffer.from(big))
  expect(session.streamPage(1, 'both', total, 1000).chunks.map((chunk) => [chunk.direction, chunk.length])).toEqual([['down', 0]])
  for (const [filter, ids] of [
    ['udp', [1, 3, 4]], ['tcp', [2]], ['transport == udp and port == 53', [3]], ['dns', [3]], ['dns.qname == www.example.test', [3]], ['dns.rcode == nxdomain', [3]], ['datagrams > 5', [1]], ['udp.port == 5000', [1]], ['state == idle', [1, 3]],
  ] as const) expect([...session.flows(filter)].map((row) => row.id), filter).toEqual(ids)
  await session.close()
})

test('what the kernel measured of both legs; nonsense there does not unsay the close', async () => {
  const capture = buildCapture()
  const measured = { clientLeg: { rtt: 250, minRtt: 200, retransmits: 3, mss: 1448 }, serverLeg: { rtt: 40_000, retransmits: 0, mss: 1220 } }
  for (const more of [measured, { serverLeg: measured.serverLeg }, {}, { clientLeg: { rtt: -1, retransmits: 'many' }, serverLeg: 7 }]) {
    const id = capture.opened()
    capture.connected(id).data(id, 'up', 'x').closed(id, 'finished', 'client', more)
  }
  const { session } = await openWhole(writeSession(capture))
  expect(session.details(1).legs).toEqual({ client: measured.clientLeg, server: measured.serverLeg })
  expect(session.details(2).legs).toEqual({ server: measured.serverLeg })
  for (const id of [3, 4]) {
    expect(session.details(id).legs).toBeUndefined()
    expect(session.details(id).row).toMatchObject({ state: 'finished', closedBy: 'client' })
  }
})
