import { appendFileSync, mkdtempSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { execFileSync } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'

import { segmentName, segmentOf } from '#core/contract/sessionFile.ts'
import { FlowFollower } from '#core/capture/followFlows.ts'
import { blockTypes } from '#core/capture/pcapngFormat.ts'
import { BlockReader } from '#core/capture/readBlocks.ts'
import { writeExport } from '#session/export.ts'
import { Session } from '#session/session.ts'
import { buildCapture } from '#test/support/captureFixture.ts'

let home: string
let saved: NodeJS.ProcessEnv
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'sluice-segments-'))
  saved = { ...process.env }
  process.env['XDG_STATE_HOME'] = join(home, 'state')
  process.env['XDG_CACHE_HOME'] = join(home, 'cache')
})
afterEach(() => {
  process.env = saved
  rmSync(home, { recursive: true, force: true })
})

const body = 'b'.repeat(30_000)

/** One long answer over three segments, with short flows in each. */
function threeSegments(): { readonly segments: Uint8Array[]; readonly long: number } {
  const capture = buildCapture()
  const long = capture.opened()
  capture.process(long).connected(long).data(long, 'up', 'GET /long HTTP/1.1\r\nHost: long.test\r\n\r\n')
  capture.data(long, 'down', `HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n${body.slice(0, 10_000)}`)
  capture.exchange('GET /first HTTP/1.1\r\nHost: a.test\r\n\r\n', 'HTTP/1.1 204 No Content\r\n\r\n')
  const first = capture.cut()
  capture.exchange('GET /second HTTP/1.1\r\nHost: b.test\r\n\r\n', 'HTTP/1.1 204 No Content\r\n\r\n')
  capture.data(long, 'down', body.slice(10_000, 20_000))
  const second = capture.cut()
  capture.data(long, 'down', body.slice(20_000))
  capture.finished(long, 'up').finished(long, 'down').closed(long)
  return { segments: [first, second, capture.take()], long }
}

function makeFolder(segments: readonly (Uint8Array | null)[], name = 'x.sluice'): string {
  const folder = join(home, name)
  mkdirSync(folder, { mode: 0o700 })
  writeFileSync(join(folder, 'session.json'), JSON.stringify({ format: 1, tool: 'sluice', version: '0.1.0', startedAt: '2025-11-25T00:00:00Z', plan: null, payload: true }))
  for (const [index, bytes] of segments.entries()) if (bytes !== null) writeFileSync(join(folder, segmentName(index + 1)), bytes)
  return folder
}
async function openWhole(folder: string): Promise<Session> {
  const session = Session.open(folder, false, { changed: () => undefined })
  await session.finish()
  return session
}
const targets = (session: Session): (string | undefined)[] => [...session.flows('')].map((row) => row.http?.target)

test('names of segments', () => {
  expect([1, 999_999, 1_000_000].map(segmentName).map(segmentOf)).toEqual([1, 999_999, 1_000_000])
  for (const name of ['capture-000000.pcapng', 'capture-1.pcapng', 'capture-0000001.pcapng', 'capture-000001.pcapng.part', 'xcapture-000001.pcapng']) expect(segmentOf(name)).toBeNull()
})

test('a flow over three segments is one flow, and an index of it is believed again', async () => {
  const { segments, long } = threeSegments()
  const folder = makeFolder(segments)
  const session = await openWhole(folder)
  expect(session.summary()).toMatchObject({ flows: 3, bytesLost: 0, notes: [] })
  expect(session.summary().read).toBe(segments.reduce((sum, each) => sum + each.length, 0))
  expect(targets(session)).toEqual(['/long', '/first', '/second'])
  expect(Buffer.concat([...session.readBody(long, 0, 'response', false)].map((part) => part.bytes)).toString()).toBe(body)
  await session.close()
  const again = Session.open(folder, false, { changed: () => undefined })
  expect(targets(again)).toEqual(['/long', '/first', '/second'])
  expect(Buffer.concat([...again.readBody(long, 0, 'response', false)].map((part) => part.bytes)).toString()).toBe(body)
  await again.close()
})

test('without its first segments: the index is built from what remains and says exactly what is lacking', async () => {
  const { segments, long } = threeSegments()
  const folder = makeFolder(segments)
  await (await openWhole(folder)).close()
  rmSync(join(folder, segmentName(1)))
  const session = await openWhole(folder)
  const row = [...session.flows('')].find(({ id }) => id === long)!
  const head = 'HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n'.length
  const lost = 'GET /long HTTP/1.1\r\nHost: long.test\r\n\r\n'.length + head + 10_000
  expect(row).toMatchObject({ state: 'finished', bytesLost: lost, process: { name: 'curl' }, bytesDown: head + 30_000 })
  expect(session.details(long)).toMatchObject({ upstream: { port: 50_001 }, gaps: [{ direction: 'up', offset: 0, reason: 'dropped' }, { direction: 'down', offset: 0, reason: 'dropped' }] })
  expect(Buffer.from(session.readStream(long, 'down', row.bytesDown - 20_000, 20_000)).toString()).toBe(body.slice(10_000))
  expect(targets(session)).toEqual([undefined, '/second'])
  await session.close()
})

test('the record says which segments went', async () => {
  const capture = buildCapture()
  capture.exchange('GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n', 'HTTP/1.1 204 No Content\r\n\r\n')
  const first = capture.cut()
  capture.dropped(1, first.length).exchange('GET /b HTTP/1.1\r\nHost: a.test\r\n\r\n', 'HTTP/1.1 204 No Content\r\n\r\n')
  const folder = makeFolder([null, capture.take()])
  for (let round = 0; round < 2; round++) {
    const session = await openWhole(folder) // the second time out of the index
    expect(session.summary().notes).toEqual([`the oldest part of the record, segment 1 (${String(first.length)} bytes), was deleted to keep the budget: flows of that time are missing or begin later`])
    await session.close()
  }
})

test('tailing goes on over segments, and over some that are deleted before they could be read', async () => {
  const { segments, long } = threeSegments()
  const folder = makeFolder([segments[0]!.subarray(0, 5000)])
  let wake: () => void = () => undefined
  const session = Session.open(folder, true, { changed: () => wake() })
  const until = async (holds: () => boolean): Promise<void> => {
    while (!holds()) await new Promise<void>((resolve) => (wake = resolve))
  }
  await until(() => session.summary().flows === 1)
  appendFileSync(join(folder, segmentName(1)), segments[0]!.subarray(5000))
  await until(() => session.summary().flows === 2)
  // The second is never seen: when the third appears, it is gone.
  writeFileSync(join(folder, segmentName(3)), segments[2]!)
  rmSync(join(folder, segmentName(1)))
  await until(() => session.summary().live === 0)
  await session.finish()
  const row = [...session.flows('')].find(({ id }) => id === long)!
  expect(row).toMatchObject({ state: 'finished', bytesLost: 10_000 })
  expect(session.details(long).gaps).toEqual([{ direction: 'down', offset: row.bytesDown - 20_000, bytes: 10_000, reason: 'dropped' }])
  expect(targets(session)).toEqual(['/long', '/first'])
  // Its bytes went with the first segment; what it was is still known.
  expect(session.readStream(long, 'down', 0, 100)).toHaveLength(0)
  expect(Buffer.from(session.readStream(long, 'down', row.bytesDown - 10_000, 10_000)).toString()).toBe(body.slice(20_000))
  await session.close()
})

test('a segment that ends in the middle of a block is told, and the next is read', async () => {
  const { segments } = threeSegments()
  const session = await openWhole(makeFolder([segments[0]!, segments[1]!.subarray(0, segments[1]!.length - 50), segments[2]!]))
  expect(session.summary().notes).toEqual(['capture-000002.pcapng ends in the middle of a block; reading went on with the next'])
  expect(session.summary()).toMatchObject({ flows: 3, bytesLost: 10_000 })
  await session.close()
})

test('exported, the segments are one section that says nothing twice, and tshark reads it', async () => {
  const { segments } = threeSegments()
  const folder = makeFolder(segments)
  const session = await openWhole(folder)
  const path = join(home, 'out.pcapng')
  await writeExport(session, { format: 'pcapng', path, filter: '', overwrite: false })
  await session.close()
  const blocks = new BlockReader()
  blocks.push(readFileSync(path))
  const follower = new FlowFollower()
  const heads: number[] = []
  const facts: string[] = []
  for (let block = blocks.next(); block !== null; block = blocks.next()) {
    if (block.type === blockTypes.sectionHeader || block.type === blockTypes.interfaceDescription) heads.push(block.type)
    const followed = follower.follow(block)
    if (followed.kind === 'fact') facts.push(`${followed.fact.t} ${'id' in followed.fact ? String(followed.fact.id) : ''}`)
  }
  expect(heads).toEqual([blockTypes.sectionHeader, blockTypes.interfaceDescription])
  expect(new Set(facts).size).toBe(facts.length)
  const tshark = (file: string, filter: string): string => execFileSync('tshark', ['-r', file, '-Y', filter, '-T', 'fields', '-e', 'http.request.uri'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  expect(tshark(path, 'http.request').trim().split('\n').sort()).toEqual(['/first', '/long', '/second'])
  for (const file of [path, ...readdirSync(folder).filter((name) => segmentOf(name) !== null).map((name) => join(folder, name))]) {
    expect(tshark(file, '_ws.malformed')).toBe('')
  }
  expect(tshark(path, 'tcp.analysis.lost_segment || tcp.analysis.retransmission || tcp.checksum.status == "Bad"')).toBe('')
})
