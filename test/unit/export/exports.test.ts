import { execFileSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { Ajv } from 'ajv'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { encodeBase64 } from '#core/export/base64.ts'
import { exportHar } from '#core/export/exportHar.ts'
import { exportNdjson } from '#core/export/exportNdjson.ts'
import { exportPcapng } from '#core/export/exportPcapng.ts'
import { BlockReader } from '#core/capture/readBlocks.ts'
import { blockTypes } from '#core/capture/pcapngFormat.ts'
import type { FlowDetails } from '#core/flow/flow.ts'
import { buildCapture } from '#test/support/captureFixture.ts'
import type { CaptureFixture } from '#test/support/captureFixture.ts'
import { exportWhole, makeHome, openWhole, writeSession } from '#test/support/sessionFixture.ts'

const require = createRequire(import.meta.url)
const tshark = '/usr/bin/tshark'

/** The published schema of HAR 1.2 (npm: har-schema); draft 6 of JSON Schema. */
function harValidator(): (har: unknown) => string[] {
  const ajv = new Ajv({ strict: false, allErrors: true, formats: { 'date-time': (text: string) => !Number.isNaN(Date.parse(text)), uri: (text: string) => URL.canParse(text), email: true, ipv4: /^[0-9.]+$/, ipv6: /^(?=.*:)[0-9a-f:.]+$/ } })
  ajv.addMetaSchema(require('ajv/dist/refs/json-schema-draft-06.json') as object)
  const schemas = require('har-schema') as Record<string, object>
  for (const schema of Object.values(schemas)) ajv.addSchema(schema)
  const validate = ajv.getSchema('har.json#')
  if (validate === undefined) throw new Error('no schema')
  return (har) => (validate(har) === true ? [] : (validate.errors ?? []).map((error) => `${error.instancePath} ${error.message ?? ''}`))
}

/** Of everything a session can hold. */
function richCapture(): CaptureFixture {
  const capture = buildCapture()
  const zipped = gzipSync('zipped text'.repeat(100))
  const curl = capture.opened()
  capture.process(curl).connected(curl)
  capture.data(curl, 'up', 'POST /form?a=1&b=%C3%BC&c HTTP/1.1\r\nHost: example.test\r\nContent-Type: application/x-www-form-urlencoded\r\nCookie: id=7; theme=dark\r\nContent-Length: 7\r\n\r\nx=1&y=2')
  capture.data(curl, 'down', Buffer.concat([
    Buffer.from(`HTTP/1.1 302 Found\r\nLocation: /next\r\nSet-Cookie: sid=9; Path=/; HttpOnly; Secure; Expires=Wed, 25 Nov 2026 00:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: ${zipped.length}\r\n\r\n`), zipped,
  ]))
  capture.data(curl, 'up', 'GET /image HTTP/1.1\r\nHost: example.test\r\n\r\n').data(curl, 'down', 'HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n')
  capture.data(curl, 'down', Uint8Array.of(0x89, 0x50, 0xff, 0)).data(curl, 'down', '\r\n0\r\n\r\n').finished(curl, 'up').finished(curl, 'down').closed(curl)
  const binary = capture.opened({ client: { address: '2001:db8:1::2', port: 1234 }, server: { address: '2001:db8:2::2', port: 8080 }, scope: 'forwarded' })
  capture.connected(binary).data(binary, 'up', Buffer.concat([Buffer.from('PUT /b HTTP/1.1\r\nHost: [2001:db8:2::2]:8080\r\nContent-Length: 3\r\n\r\n'), Uint8Array.of(0xff, 0xfe, 0x00)]))
  capture.data(binary, 'down', 'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\npart').gap(binary, 'down', 16).closed(binary, 'server-reset', 'server')
  const lost = capture.opened()
  capture.connected(lost).data(lost, 'up', 'GET /lost HTTP/1.1\r\nHost: a.test\r\n\r\n').closed(lost, 'timed-out')
  capture.exchange('GET /ws HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\n\r\n', 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nxx')
  capture.exchange('HEAD /odd"<>\u001b[31m HTTP/1.1\r\nHost: a.test\r\nX-Odd: \u0000\u001b\r\n\r\n', 'HTTP/1.1 200 \r\nContent-Encoding: br\r\n\r\n')
  capture.exchange('GET /bad HTTP/1.1\r\nHost: a.test\r\n\r\n', 'HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope')
  const br = brotliCompressSync('brotli')
  capture.exchange('GET /br HTTP/1.1\r\nHost: a.test\r\n\r\n', Buffer.concat([Buffer.from(`HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: ${br.length}\r\n\r\n`), br]))
  const shell = capture.opened({ server: { address: '203.0.113.9', port: 22 } })
  capture.connected(shell).data(shell, 'down', 'SSH-2.0-x\r\n')
  return capture
}

interface Entry {
  readonly startedDateTime: string
  readonly time: number
  readonly request: { readonly method: string; readonly url: string; readonly bodySize: number; readonly queryString: unknown; readonly cookies: unknown; readonly postData?: unknown; readonly _content?: unknown }
  readonly response: { readonly status: number; readonly redirectURL: string; readonly cookies: unknown; readonly bodySize: number; readonly content: Record<string, unknown> }
  readonly timings: Record<string, number>
  readonly serverIPAddress: string
  readonly comment?: string
  readonly [own: `_${string}`]: unknown
}

describe('HAR', () => {
  test('is what the published schema says, with what was sent', async () => {
    const { session } = await openWhole(writeSession(makeHome(), richCapture().bytes()))
    const { bytes, tally } = exportWhole(exportHar(session, { filter: '', version: '0.1.0' }))
    const har = JSON.parse(bytes.toString('utf8')) as { log: { entries: Entry[]; comment: string; creator: unknown } }
    const errors = harValidator()
    expect(errors(har)).toEqual([])
    // The check itself can fail.
    expect(errors({ log: { ...har.log, entries: [{ ...har.log.entries[0], timings: { send: 'soon' } }] } })).not.toEqual([])
    const { entries } = har.log
    expect(entries.map(({ request, response }) => `${request.method} ${request.url} ${response.status}`)).toEqual([
      'POST http://example.test/form?a=1&b=%C3%BC&c 302', 'GET http://example.test/image 200', 'PUT http://[2001:db8:2::2]:8080/b 200', 'GET http://a.test/lost 0', 'GET http://a.test/ws 101',
      'HEAD http://a.test/odd%22%3C%3E%1B[31m 200', 'GET http://a.test/bad 200', 'GET http://a.test/br 200',
    ])
    const [form, image, put, lost, ws, , bad, br] = entries as [Entry, Entry, Entry, Entry, Entry, Entry, Entry, Entry]
    expect(form.request).toMatchObject({
      bodySize: 7, postData: { mimeType: 'application/x-www-form-urlencoded', text: 'x=1&y=2' }, cookies: [{ name: 'id', value: '7' }, { name: 'theme', value: 'dark' }],
      queryString: [{ name: 'a', value: '1' }, { name: 'b', value: 'ü' }, { name: 'c', value: '' }],
    })
    expect(form.response).toMatchObject({
      redirectURL: '/next', cookies: [{ name: 'sid', value: '9', path: '/', httpOnly: true, secure: true, expires: '2026-11-25T00:00:00.000Z' }],
      content: { size: 1100, text: 'zipped text'.repeat(100), mimeType: 'text/plain' },
    })
    expect(form.response.content['compression']).toBe(1100 - form.response.bodySize)
    expect(image.response.content).toMatchObject({ size: 4, encoding: 'base64', text: Buffer.from([0x89, 0x50, 0xff, 0]).toString('base64') })
    expect(put).toMatchObject({
      serverIPAddress: '2001:db8:2::2', _client: '[2001:db8:1::2]:1234', _scope: 'forwarded',
      request: { _content: { encoding: 'base64', text: Buffer.from([0xff, 0xfe, 0]).toString('base64') } }, response: { bodySize: -1, content: { text: 'part' } }, comment: 'the response body is not whole',
    })
    expect(lost).toMatchObject({ response: { status: 0 }, _error: 'no answer' })
    expect(ws).toMatchObject({ _upgraded: 'websocket', _resourceType: 'websocket' })
    expect(bad.response.content).toMatchObject({ text: 'nope', _encoded: 'gzip' })
    expect(br.response.content).toMatchObject({ text: 'brotli' })
    for (const { timings, time } of entries) {
      const sum = Object.entries(timings).reduce((all, [name, value]) => (value >= 0 && name !== 'ssl' ? all + value : all), 0)
      expect(Math.abs(sum - time)).toBeLessThan(0.001)
      expect([timings['send'], timings['wait'], timings['receive']].every((value) => (value ?? -1) >= 0)).toBe(true)
    }
    expect(entries.map((entry) => entry.startedDateTime)).toEqual([...entries.map((entry) => entry.startedDateTime)].sort())
    expect(tally).toMatchObject({ flows: 8, entries: 8 })
    expect(har.log.comment).toBe(tally.notes.join('; '))
    expect(tally.notes.join()).toMatch(/1 flow without an HTTP request.*1 body not whole.*1 body could not be decoded/)
    await session.close()
  })

  test('leaves out what is too big and says so; a filter chooses', async () => {
    const capture = buildCapture()
    capture.exchange('GET /big HTTP/1.1\r\nHost: a.test\r\n\r\n', `HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n${'x'.repeat(5000)}`)
    capture.exchange('GET /small HTTP/1.1\r\nHost: b.test\r\n\r\n', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny')
    const { session } = await openWhole(writeSession(makeHome(), capture.bytes()))
    const whole = exportWhole(exportHar(session, { filter: '', version: '1', bodyLimit: 4096 }))
    const { entries } = (JSON.parse(whole.bytes.toString()) as { log: { entries: Entry[] } }).log
    expect(entries[0]!.response.content).toEqual({ size: 5000, mimeType: 'application/octet-stream' })
    expect(entries[0]!.comment).toBe('response body of 5000 bytes left out')
    expect(whole.tally.notes).toEqual([expect.stringContaining('1 body of more than')])
    const some = exportWhole(exportHar(session, { filter: 'host == b.test', version: '1' }))
    expect((JSON.parse(some.bytes.toString()) as { log: { entries: Entry[] } }).log.entries.map(({ request }) => request.url)).toEqual(['http://b.test/small'])
    const none = exportWhole(exportHar(session, { filter: 'host == nobody.test', version: '1' }))
    expect(harValidator()(JSON.parse(none.bytes.toString()))).toEqual([])
    expect(none.tally).toMatchObject({ flows: 0, entries: 0 })
    await session.close()
  })
})

describe('pcapng', () => {
  test.skipIf(!existsSync(tshark))('has right checksums, chosen flows alone, and what tshark understands', async () => {
    const home = makeHome()
    const { session } = await openWhole(writeSession(home, richCapture().bytes()))
    const { bytes, tally } = exportWhole(exportPcapng(session, { filter: '' }))
    const file = join(home, 'out.pcapng')
    writeFileSync(file, bytes)
    const read = (): string[][] =>
      execFileSync(tshark, ['-r', file, '-o', 'ip.check_checksum:TRUE', '-o', 'tcp.check_checksum:TRUE', '-T', 'fields', '-e', 'tcp.stream', '-e', 'tcp.checksum.status', '-e', 'ip.checksum.status'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
        .trimEnd().split('\n').map((line) => line.split('\t')).filter((row) => row[0] !== '')
    const rows = read()
    expect(rows.length).toBe(tally.entries)
    expect(new Set(rows.map((row) => row[1]))).toEqual(new Set(['1']))
    expect(new Set(rows.map((row) => row[2]))).toEqual(new Set(['1', '']))
    expect(tally.flows).toBe(8)
    expect(tally.notes.join()).toMatch(/previous segment not captured/)

    const some = exportWhole(exportPcapng(session, { filter: 'port == 8080' }))
    expect(some.tally.flows).toBe(1)
    writeFileSync(file, some.bytes)
    expect(new Set(read().map((row) => row[0]))).toEqual(new Set(['0']))
    // It can be opened again as a session, with the one flow.
    const again = await openWhole(writeSession(home, some.bytes, 'again.sluice'))
    expect(again.summary).toMatchObject({ flows: 1, live: 0, notes: [] })
    expect(again.session.details(2).row.server.port).toBe(8080)
    await again.session.close()
    await session.close()
  })

  test('padding of the record is nothing, to the session and in a copy', async () => {
    const plain = richCapture().bytes()
    const padding = Buffer.alloc(400)
    padding.writeUInt32LE(blockTypes.padding, 0)
    padding.writeUInt32LE(padding.length, 4)
    padding.writeUInt32LE(padding.length, padding.length - 4)
    const pieces: Uint8Array[] = []
    const blocks = new BlockReader()
    blocks.push(plain)
    for (let block = blocks.next(); block !== null; block = blocks.next()) {
      pieces.push(block.bytes.slice())
      if (block.type !== blockTypes.sectionHeader) pieces.push(padding)
    }
    const home = makeHome()
    const before = await openWhole(writeSession(home, plain))
    const after = await openWhole(writeSession(home, Buffer.concat(pieces), 'padded.sluice'))
    expect({ ...after.summary, size: 0, read: 0 }).toEqual({ ...before.summary, size: 0, read: 0 })
    const copies = [before, after].map(({ session }) => exportWhole(exportPcapng(session, { filter: '' })))
    expect(copies[1]?.bytes.equals(copies[0]?.bytes ?? Buffer.alloc(0))).toBe(true)
    expect(copies[1]?.tally).toEqual(copies[0]?.tally)
    await before.session.close()
    await after.session.close()
  })

  test('stops where the record stops', async () => {
    const whole = richCapture().bytes()
    const { session } = await openWhole(writeSession(makeHome(), whole.subarray(0, whole.length - 7)))
    const { bytes, tally } = exportWhole(exportPcapng(session, { filter: '' }))
    expect(tally.notes.length).toBeGreaterThan(0)
    const blocks = new BlockReader()
    blocks.push(bytes)
    let packets = 0
    for (let block = blocks.next(); block !== null; block = blocks.next()) if (block.type === blockTypes.enhancedPacket) packets++
    expect(blocks.pending).toBe(0)
    expect(packets).toBe(tally.entries)
    await session.close()
  })
})

test('NDJSON: a line a flow, the same as the details of each', async () => {
  const { session, summary } = await openWhole(writeSession(makeHome(), richCapture().bytes()))
  const progress: [number, number][] = []
  const { bytes, tally } = exportWhole(exportNdjson(session, { filter: '', onProgress: (done, of) => void progress.push([done, of]) }))
  const lines = bytes.toString('utf8').trimEnd().split('\n').map((line) => JSON.parse(line) as FlowDetails)
  expect(lines.length).toBe(summary.flows)
  for (const line of lines) expect(line).toEqual(session.details(line.row.id))
  expect(progress.at(-1)).toEqual([summary.flows, summary.flows])
  expect(tally).toMatchObject({ flows: summary.flows, entries: summary.flows })
  expect(exportWhole(exportNdjson(session, { filter: 'status == 101' })).tally.flows).toBe(1)
  await session.close()
})

test('base64 is what everybody else writes', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => { expect(encodeBase64(bytes)).toBe(Buffer.from(bytes).toString('base64')) }))
  const long = Uint8Array.from({ length: 100_001 }, (_, index) => (index * 31) & 255)
  expect(encodeBase64(long)).toBe(Buffer.from(long).toString('base64'))
})
