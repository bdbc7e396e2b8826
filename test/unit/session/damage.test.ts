import { chmodSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { encodeFact } from '#core/capture/encodeBlocks.ts'
import { exportHar } from '#core/export/exportHar.ts'
import { exportNdjson } from '#core/export/exportNdjson.ts'
import { exportPcapng } from '#core/export/exportPcapng.ts'
import { Session } from '#session/session.ts'
import { buildCapture } from '#test/support/captureFixture.ts'
import { exportWhole, makeHome, openWhole, writeSession } from '#test/support/sessionFixture.ts'

function sample(): Uint8Array {
  const capture = buildCapture()
  capture.exchange('GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello')
  const id = capture.opened({ client: { address: '2001:db8::1', port: 5 }, server: { address: '2001:db8::2', port: 443 } })
  capture.process(id).connected(id).data(id, 'up', new Uint8Array(2000).fill(7)).gap(id, 'down', 100).data(id, 'down', 'after').closed(id, 'server-reset', 'server')
  capture.exchange('POST /b HTTP/1.1\r\nHost: b.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n', 'HTTP/1.1 204 No Content\r\n\r\n')
  return capture.bytes()
}

let number = 0
/** Opens it, asks for everything there is to ask, exports it all. Nothing of it may throw; a refusal at opening is the one exception. */
async function readAll(home: string, bytes: Uint8Array): Promise<{ readonly flows: number; readonly notes: readonly string[] } | string> {
  const folder = writeSession(home, bytes, `${++number}.sluice`)
  try {
    let opened: Awaited<ReturnType<typeof openWhole>>
    try {
      opened = await openWhole(folder)
    } catch (error) {
      expect(error).toMatchObject({ code: 'session-unreadable' })
      return (error as Error).message
    }
    const { session, summary } = opened
    const page = await session.flowPage({ filter: '', sort: 'id', descending: false }, 0, 100)
    expect(page.rows.length).toBe(summary.flows)
    for (const row of page.rows) {
      const details = session.details(row.id)
      const stream = session.streamPage(row.id, 'both', 0, 1 << 20)
      for (const direction of ['up', 'down'] as const) session.readStream(row.id, direction, 0, 1 << 20)
      for (const chunk of stream.chunks) expect(chunk.length).toBeGreaterThan(0)
      for (const { index, request, response } of details.exchanges) {
        for (const part of response === undefined ? (['request'] as const) : (['request', 'response'] as const)) {
          const body = await session.bodyPage(row.id, index, part, true, 0, 4096)
          expect(Buffer.from(body.bytes, 'base64').length).toBeLessThanOrEqual(4096)
        }
        expect(request.url).toMatch(/^https?:\/\//)
      }
    }
    for (const steps of [exportHar(session, { filter: '', version: '1' }), exportNdjson(session, { filter: '' }), exportPcapng(session, { filter: '' })]) exportWhole(steps)
    await session.close()
    return summary
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

describe('a capture that is not as it was written', () => {
  test('cut at any byte: every flow that began is there, and it is said', async () => {
    const home = makeHome()
    const whole = sample()
    const good = await readAll(home, whole)
    expect(good).toMatchObject({ flows: 3, notes: [] })
    let before = 0
    for (let length = 12; length < whole.length; length += length < 600 ? 7 : 61) {
      const found = await readAll(home, whole.subarray(0, length))
      expect(typeof found).toBe('object')
      const { flows } = found as { flows: number }
      expect(flows).toBeGreaterThanOrEqual(before)
      before = flows
    }
    expect(before).toBe(3)
    expect(await readAll(home, whole.subarray(0, whole.length - 3))).toMatchObject({ flows: 3, notes: [expect.stringMatching(/^the record ends in the middle of a block/)] })
    expect(await readAll(home, whole.subarray(0, 5))).toBe('capture-000001.pcapng is not a capture of Sluice')
  }, 60_000)

  test('with bytes changed, anywhere', async () => {
    const home = makeHome()
    const whole = sample()
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(fc.nat(whole.length - 1), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 8 }), async (changes) => {
        const bytes = whole.slice()
        for (const [at, value] of changes) bytes[at] = value
        await readAll(home, bytes)
      }),
      { numRuns: 150 },
    )
  }, 120_000)

  test('with blocks twice, left out, in another order, or of junk', async () => {
    const home = makeHome()
    const whole = sample()
    const blocks: Uint8Array[] = []
    for (let at = 0; at < whole.length; ) {
      const length = Buffer.from(whole.buffer, whole.byteOffset).readUInt32LE(at + 4)
      blocks.push(whole.subarray(at, at + length))
      at += length
    }
    const [section, ...rest] = blocks as [Uint8Array, ...Uint8Array[]]
    await fc.assert(
      fc.asyncProperty(fc.array(fc.oneof({ weight: 5, arbitrary: fc.constantFrom(...rest) }, { weight: 1, arbitrary: fc.uint8Array({ maxLength: 80 }) }), { maxLength: 40 }), async (chosen) => {
        await readAll(home, Buffer.concat([section, ...chosen]))
      }),
      { numRuns: 150 },
    )
  }, 120_000)

  test('with facts that say what cannot be: they are passed over', async () => {
    const capture = buildCapture()
    const open = { t: 'open', proto: 'tcp', scope: 'local', client: { address: '198.51.100.2', port: 1 }, server: { address: '203.0.113.2', port: 80 }, time: '1' } as const
    for (const odd of [{ time: ':7' }, { time: '9'.repeat(19) }, { time: '-1' }, { time: '' }, { id: 0 }, { id: 1.5 }, { client: { address: 'nowhere', port: 1 } }, { server: { address: '203.0.113.2', port: 70_000 } }]) {
      capture.block(encodeFact({ id: 7, ...open, ...odd }))
    }
    capture.exchange('GET / HTTP/1.1\r\n\r\n', 'HTTP/1.1 204 No Content\r\n\r\n', { id: 8 })
    expect(await readAll(makeHome(), capture.bytes())).toMatchObject({ flows: 1, notes: [] })
  })

  test('that claims a block of gigabytes is not waited for, nor held in memory', async () => {
    const lie = sample().slice()
    const section = Buffer.from(lie.buffer).readUInt32LE(4)
    Buffer.from(lie.buffer).writeUInt32LE(0xfffffff0, section + 4)
    const found = await readAll(makeHome(), lie)
    expect(found).toMatchObject({ flows: 0, notes: [expect.stringMatching(/^the capture is damaged at byte \d+: .*; what follows was not read$/)] })
  })
})

describe('a session that cannot be read says so in one line', () => {
  const open = (folder: string): unknown => {
    try {
      void Session.open(folder, false, { changed: () => undefined }).close()
      return undefined
    } catch (error) {
      const { code, message } = error as { code: string; message: string }
      expect(message).not.toContain('\n')
      return code
    }
  }
  test.each([
    ['that is not there', 'session-missing', (home: string) => join(home, 'nothing.sluice')],
    ['that is a file', 'session-unreadable', (home: string) => { writeFileSync(join(home, 'f'), 'x'); return join(home, 'f') }],
    ['without a capture', 'session-unreadable', (home: string) => { const folder = writeSession(home, sample()); rmSync(join(folder, 'capture-000001.pcapng')); return folder }],
    ['whose capture is a folder', 'session-unreadable', (home: string) => { const folder = writeSession(home, sample()); rmSync(join(folder, 'capture-000001.pcapng')); mkdirSync(join(folder, 'capture-000001.pcapng')); return folder }],
    ['whose capture is a link to elsewhere', 'session-unreadable', (home: string) => { const folder = writeSession(home, sample()); rmSync(join(folder, 'capture-000001.pcapng')); symlinkSync('/etc/passwd', join(folder, 'capture-000001.pcapng')); return folder }],
    ['of another kind of file', 'session-unreadable', (home: string) => writeSession(home, Buffer.from('%PDF-1.7 and more of it'))],
    ['whose description is damaged', 'session-unreadable', (home: string) => { const folder = writeSession(home, sample()); writeFileSync(join(folder, 'session.json'), '{'); return folder }],
    ['of a newer Sluice', 'session-unreadable', (home: string) => { const folder = writeSession(home, sample()); writeFileSync(join(folder, 'session.json'), '{"format":2}'); return folder }],
  ] as const)('%s', (_name, code, make) => {
    expect(open(make(makeHome()))).toBe(code)
  })

  test('an index that lies beside it is not believed', async () => {
    const home = makeHome()
    const folder = writeSession(home, sample())
    writeFileSync(join(folder, 'index.db'), 'SQLite format 3\0 but not one')
    const { session, summary } = await openWhole(folder)
    expect(summary.flows).toBe(3)
    await session.close()
    chmodSync(folder, 0o700)
  })
})
