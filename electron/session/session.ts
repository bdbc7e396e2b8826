import { watch } from 'node:fs'
import type { FSWatcher } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'

import { codingsOf, decodedLimit, decodeStreaming, decodeWhole } from './bodyDecoder.ts'
import type { Decoded } from './bodyDecoder.ts'
import { CaptureFiles } from './captureFiles.ts'
import type { PlacedSegment } from './captureFiles.ts'
import { FlowQuery } from './flowQuery.ts'
import type { FlowOrder } from './flowQuery.ts'
import type { PlacedIndex } from './indexPlace.ts'
import { placeIndex } from './indexPlace.ts'
import { CaptureIngest } from './ingest.ts'
import type { IngestTotals, SegmentsDropped } from './ingest.ts'
import { findSession } from './sessionFolder.ts'
import type { FoundSession } from './sessionFolder.ts'
import { StreamReader } from './streamReader.ts'
import { Failure } from '#core/contract/failure.ts'
import type { BodyPage, FlowPage, SessionSummary, StreamPage } from '#core/contract/inspectorProtocol.ts'
import { segmentName } from '#core/contract/sessionFile.ts'
import type { Part } from '#core/dissect/dissector.ts'
import { headerValues } from '#core/dissect/httpHead.ts'
import type { BodyPart, SessionReader } from '#core/export/sessionReader.ts'
import { escapeText } from '#core/flow/escapeText.ts'
import type { Direction, FlowDetails, FlowRow, HttpBody, HttpExchange, HttpHeader, StreamChunk } from '#core/flow/flow.ts'

/** A step of reading takes at most so long (milliseconds), so that questions are answered meanwhile. */
const stepTime = 12
const pollTime = 100
const changedTime = 100

interface StoredTotals extends IngestTotals {
  readonly dropped?: SegmentsDropped
}

export interface SessionEvents {
  /** At most ten times a second. */
  changed(revision: number, flows: ReadonlySet<number>, summary: SessionSummary): void
}

/** An open session: reads its capture, follows it while it is live, answers questions about it. */
export class Session implements SessionReader {
  private readonly found: FoundSession
  private readonly events: SessionEvents
  private files: CaptureFiles | null = null
  private index: PlacedIndex | null = null
  private ingest: CaptureIngest | null = null
  private query: FlowQuery | null = null
  private streams: StreamReader | null = null
  private stored: StoredTotals | null = null
  private revision = 0
  private live: boolean
  private ended = false
  private closed = false
  private lastFlush = 0
  private flushTimer: NodeJS.Timeout | null = null
  private wake: (() => void) | null = null
  private watcher: FSWatcher | null = null
  private running: Promise<void> = Promise.resolve()
  private error: Error | null = null
  private decoded: { readonly key: string; readonly result: Promise<Decoded> } | null = null

  private constructor(found: FoundSession, live: boolean, events: SessionEvents) {
    this.found = found
    this.live = live
    this.events = events
  }

  /** Opens what is there and starts reading. Failures: 'session-missing', 'session-unreadable'. A live session may have no capture yet. */
  static open(folder: string, live: boolean, events: SessionEvents): Session {
    const session = new Session(findSession(folder), live, events)
    if (!session.attach() && !live) throw new Failure('session-unreadable', `there is no capture (${segmentName(1)}) in this session`)
    session.running = session.run()
    return session
  }

  private attach(): boolean {
    const files = CaptureFiles.open(this.found.folder)
    if (files === null) return false
    try {
      // The first bytes tell whether this is a capture at all; later damage is a note, not a refusal.
      const head = files.head()
      const good = head.length < 12 || Buffer.from(head).readUInt32LE(0) === 0x0a0d0d0a
      if (!good || (head.length < 12 && !this.live && head.length > 0)) throw new Failure('session-unreadable', `${segmentName(files.segments[0]!.number)} is not a capture of Sluice`)
      this.index = placeIndex(this.found, files)
    } catch (error) {
      files.close()
      throw error
    }
    this.files = files
    const { store, complete } = this.index
    if (complete) {
      this.stored = JSON.parse(store.meta('totals') ?? 'null') as StoredTotals | null
      // Where its chunks lie counts segments that may be gone by now.
      files.place(JSON.parse(store.meta('segments') ?? '[]') as PlacedSegment[])
      this.ended = true
      this.live = false
      this.revision = 1
    } else {
      this.ingest = new CaptureIngest(files, store)
    }
    this.query = new FlowQuery(store, () => { if (this.ended) this.index?.seal() })
    this.streams = new StreamReader(store, files)
    return true
  }

  /** Reads until the end; while live, waits for more. */
  private async run(): Promise<void> {
    try {
      while (!this.closed && !this.ended) {
        if (this.files === null && !this.attach()) {
          if (!this.live) break
          await this.more()
          continue
        }
        const { ingest } = this
        if (ingest === null) break
        // Asked before the step: what came after `finish` was asked is read by another one.
        const { live } = this
        const dry = ingest.step(performance.now() + stepTime)
        this.announce()
        if (!dry) await turn()
        else if (live && ingest.damage === undefined) await this.more()
        else break
      }
      if (!this.closed && !this.ended) this.complete()
    } catch (error) {
      this.error = error instanceof Error ? error : new Error(String(error))
    } finally {
      this.watcher?.close()
      this.watcher = null
    }
  }

  /** Resolves when the folder has changed, or after a moment. */
  private more(): Promise<void> {
    if (this.watcher === null) {
      try {
        this.watcher = watch(this.found.folder, () => { this.wake?.() })
        this.watcher.on('error', () => undefined) // polling remains
      } catch {
        // Polling alone, then.
      }
    }
    return new Promise((resolve) => {
      const timer = setTimeout(() => { this.wake?.() }, pollTime)
      this.wake = () => {
        clearTimeout(timer)
        this.wake = null
        resolve()
      }
    })
  }

  private complete(): void {
    const { ingest, index } = this
    this.ended = true
    if (ingest === null || index === null) return
    ingest.finish()
    this.flush()
    this.stored = { ...ingest.totals(), ...(ingest.dropped === undefined ? {} : { dropped: ingest.dropped }) }
    // A damaged or cut capture is read again next time: its notes are not kept.
    if (ingest.damage === undefined && ingest.cutSegment === undefined && ingest.pending === 0) {
      index.store.putMeta('segments', JSON.stringify(this.files?.segments ?? []))
      index.store.putMeta('totals', JSON.stringify(this.stored))
      index.seal()
    }
  }

  /** Lets the listener know soon, and not more than ten times a second. */
  private announce(): void {
    if (this.flushTimer !== null || this.ingest?.hasChanges !== true) return
    const wait = Math.max(0, this.lastFlush + changedTime - performance.now())
    if (wait === 0) this.flush()
    else this.flushTimer = setTimeout(() => { if (!this.closed && !this.ended) this.flush() }, wait)
  }

  private flush(): void {
    if (this.flushTimer !== null) clearTimeout(this.flushTimer)
    this.flushTimer = null
    if (this.ingest === null) return
    const flows = this.ingest.flush()
    this.lastFlush = performance.now()
    this.revision++
    this.query?.changed(this.revision, flows)
    this.events.changed(this.revision, flows, this.summary())
  }

  /** The writer is gone: reads to the end. */
  async finish(): Promise<SessionSummary> {
    this.live = false
    this.wake?.()
    await this.running
    if (this.error !== null) throw this.error
    return this.summary()
  }

  async close(): Promise<void> {
    this.closed = true
    this.wake?.()
    await this.running
    if (this.flushTimer !== null) clearTimeout(this.flushTimer)
    this.index?.close()
    this.files?.close()
    this.index = null
    this.files = null
  }

  summary(): SessionSummary {
    const size = this.files?.size() ?? 0
    const notes = [...this.found.notes]
    const { ingest } = this
    if (ingest?.damage !== undefined) notes.push(`${ingest.damage}; what follows was not read`)
    else if (this.ended && ingest !== null && ingest.pending > 0) notes.push(`the record ends in the middle of a block (${String(ingest.pending)} bytes of it are there)`)
    if (ingest?.cutSegment !== undefined) notes.push(`${segmentName(ingest.cutSegment)} ends in the middle of a block; reading went on with the next`)
    const dropped = this.stored?.dropped ?? ingest?.dropped
    if (dropped !== undefined) notes.push(droppedNote(dropped))
    if (this.error !== null) notes.push(`reading stopped: ${escapeText(this.error.message, 300)}`)
    const totals = this.stored ?? ingest?.totals() ?? { flows: 0, live: 0, bytesUp: 0, bytesDown: 0, bytesLost: 0 }
    const { flows, live, bytesUp, bytesDown, bytesLost } = totals
    return { flows, live, bytesUp, bytesDown, bytesLost, read: this.ended ? size : Math.min(ingest?.read ?? 0, size), size, notes }
  }

  flowPage(order: FlowOrder, offset: number, limit: number): Promise<FlowPage> {
    return this.query?.page(order, offset, limit) ?? Promise.resolve({ total: 0, matching: 0, rows: [], revision: this.revision })
  }

  position(order: FlowOrder, flow: number): Promise<number | null> {
    return this.query?.position(order, flow) ?? Promise.resolve(null)
  }

  details(flow: number, exchangeOffset = 0, exchangeLimit = 1_000_000): FlowDetails {
    const row = this.row(flow)
    const { store } = this.index!
    return {
      row, ...store.more(flow),
      exchanges: store.exchanges(flow, exchangeOffset, exchangeLimit), exchangeCount: store.exchangeCount(flow), gaps: store.gaps(flow, 1000),
    }
  }

  streamPage(flow: number, direction: Direction | 'both', offset: number, limit: number): StreamPage {
    const row = this.row(flow)
    const chunks: StreamChunk[] = []
    for (const { bytes, time, ...rest } of this.streams!.stretches(flow, direction, offset, limit, row.transport === 'udp')) {
      chunks.push({ ...rest, time: String(time), ...(bytes === undefined ? {} : { bytes: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64') }) })
      if (chunks.length >= 5000) break
    }
    return { chunks, total: (direction === 'down' ? 0 : row.bytesUp) + (direction === 'up' ? 0 : row.bytesDown) }
  }

  async bodyPage(flow: number, exchange: number, part: Part, decoded: boolean, offset: number, limit: number): Promise<BodyPage> {
    const { body, headers } = this.message(flow, exchange, part)
    const type = headerValues(headers, 'content-type')[0]
    const encoding = headerValues(headers, 'content-encoding').join(', ')
    const said = { ...(type === undefined ? {} : { contentType: escapeText(type, 200) }), ...(encoding === '' ? {} : { encoding: escapeText(encoding, 100) }) }
    const codings = codingsOf(headers)
    if (!decoded || codings.length === 0 || typeof codings === 'string') {
      const error = decoded && typeof codings === 'string' ? codings : undefined
      const { bytes, missing } = this.rawBody(flow, exchange, part, body, offset, limit)
      const note = error ?? (missing ? 'part of it was not recorded' : undefined)
      return { bytes: bytes.toString('base64'), total: body.length, ...said, ...(note === undefined ? {} : { error: note }) }
    }
    const key = [flow, exchange, part, body.length].join(' ')
    if (this.decoded?.key !== key) this.decoded = { key, result: decodeStreaming(this.wireBytes(flow, exchange, part, body), codings) }
    const result = await this.decoded.result
    const cut = result.error ?? (body.truncated ? 'part of it was not recorded' : undefined)
    const bytes = Buffer.from(result.bytes.subarray(offset, offset + limit)).toString('base64')
    return { bytes, total: result.bytes.length, ...said, ...(cut === undefined ? {} : { error: cut }) }
  }

  private rawBody(flow: number, exchange: number, part: Part, body: HttpBody, offset: number, limit: number): { bytes: Buffer; missing: boolean } {
    const parts: Uint8Array[] = []
    let length = 0
    let lacks = false
    for (const { bytes, missing } of this.streams!.body(flow, exchange, part, body, offset)) {
      parts.push(bytes.subarray(0, limit - length))
      length += bytes.length
      lacks ||= missing
      if (length >= limit || missing) break
    }
    return { bytes: Buffer.concat(parts), missing: lacks }
  }

  private *wireBytes(flow: number, exchange: number, part: Part, body: HttpBody): Generator<Uint8Array> {
    for (const { bytes, missing } of this.streams!.body(flow, exchange, part, body, 0)) {
      if (missing) return
      yield bytes
    }
  }

  private message(flow: number, exchange: number, part: Part): { readonly body: HttpBody; readonly headers: readonly HttpHeader[] } {
    this.row(flow)
    const found = this.index!.store.exchanges(flow, exchange, 1)[0]
    const message = found?.index !== exchange ? undefined : part === 'request' ? found.request : found.response
    if (message === undefined) throw new Failure('flow-unknown', `flow ${String(flow)} has no such ${part}`)
    return message
  }

  private row(flow: number): FlowRow {
    const row = this.index?.store.row(flow)
    if (row === undefined) throw new Failure('flow-unknown', `there is no flow ${String(flow)} in this session`)
    return row
  }

  // What exports read through.

  flows(filter: string): Iterable<FlowRow> {
    return this.query?.rows(filter) ?? []
  }

  countFlows(filter: string): number {
    return this.query?.count(filter) ?? 0
  }

  *exchanges(flow: number): Generator<HttpExchange> {
    const { store } = this.index!
    for (let at = 0; ; ) {
      const some = store.exchanges(flow, at, 50)
      if (some.length === 0) return
      yield* some
      at = some.at(-1)!.index + 1
    }
  }

  readStream(flow: number, direction: Direction, offset: number, length: number): Uint8Array {
    return this.streams!.read(flow, direction, offset, Math.min(length, 1 << 20))
  }

  *readBody(flow: number, exchange: number, part: Part, decoded: boolean): Generator<BodyPart> {
    const { body, headers } = this.message(flow, exchange, part)
    const codings = decoded ? codingsOf(headers) : []
    if (typeof codings === 'string' || codings.length === 0) {
      for (const { bytes, missing } of this.streams!.body(flow, exchange, part, body, 0)) {
        yield missing ? { bytes, error: 'part of it was not recorded' } : { bytes }
      }
      if (typeof codings === 'string') yield { bytes: new Uint8Array(0), error: codings }
      return
    }
    if (body.length > decodedLimit) {
      yield { bytes: new Uint8Array(0), error: 'it is too long to be decoded' }
      return
    }
    const { bytes, error } = decodeWhole(Buffer.concat([...this.wireBytes(flow, exchange, part, body)]), codings)
    for (let at = 0; at < bytes.length; at += 65_536) yield { bytes: bytes.subarray(at, at + 65_536) }
    const cut = error ?? (body.truncated ? 'part of it was not recorded' : undefined)
    if (cut !== undefined) yield { bytes: new Uint8Array(0), error: cut }
  }

  *captureBytes(): Generator<Uint8Array> {
    const { files } = this
    if (files === null) return
    for (const segment of [...files.segments]) {
      const end = Math.min(segment.start + segment.size, this.ingest?.offset ?? Infinity)
      for (let at = segment.start; at < end; ) {
        const piece = files.at(at, Math.min(262_144, end - at))
        if (piece.length === 0) break // deleted meanwhile
        yield piece
        at += piece.length
      }
    }
  }
}

function droppedNote({ first, last, bytes }: SegmentsDropped): string {
  const which = first === last ? `segment ${String(first)}` : `segments ${String(first)} to ${String(last)}`
  return `the oldest part of the record, ${which} (${String(bytes)} bytes), was deleted to keep the budget: flows of that time are missing or begin later`
}
