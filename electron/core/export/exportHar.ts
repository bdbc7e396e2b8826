import { encodeBase64 } from './base64.ts'
import { counted } from './exportSteps.ts'
import type { ExportSteps, ExportWish } from './exportSteps.ts'
import { entryStart, harRequest, harResponse, harTime, harTimings, headerValue, isoTime, ownFields } from './harEntry.ts'
import type { SessionReader } from './sessionReader.ts'
import { decodeUtf8, encodeUtf8 } from '../capture/utf8.ts'
import type { FlowDetails, FlowProtocol, HttpExchange } from '../flow/flow.ts'

/** A body bigger than this when decoded is described, not written: a HAR is read whole by most who read it. */
export const harBodyLimit = 16 * 1024 * 1024

interface Body {
  /** Undefined when it was over the limit. */
  readonly bytes?: Uint8Array
  /** Length of the (decoded) body. */
  readonly size: number
  readonly error?: string
}

/** What was left out, counted for the notes. */
interface Omitted {
  big: number
  cut: number
  undecoded: number
}

/** Reads a body whole up to the limit; beyond it only its length. */
function gatherBody(reader: SessionReader, flow: number, index: number, part: 'request' | 'response', decoded: boolean, limit: number): Body {
  const parts: Uint8Array[] = []
  let size = 0
  let error: string | undefined
  for (const each of reader.readBody(flow, index, part, decoded)) {
    size += each.bytes.length
    if (size <= limit) parts.push(each.bytes.slice())
    else parts.length = 0
    if (each.error !== undefined) error = each.error
  }
  const failed = error === undefined ? {} : { error }
  if (size > limit) return { size, ...failed }
  const bytes = new Uint8Array(size)
  let at = 0
  for (const each of parts) {
    bytes.set(each, at)
    at += each.length
  }
  return { bytes, size, ...failed }
}

/** The text, when the bytes are UTF-8 all through; others travel as base64. */
function asText(bytes: Uint8Array): string | undefined {
  const text = decodeUtf8(bytes)
  // Decoding takes a byte order mark away and turns damage into U+FFFD: neither survives the way back.
  const back = encodeUtf8(text)
  return back.length === bytes.length && back.every((byte, index) => byte === bytes[index]) ? text : undefined
}

/** One exchange as an entry of HAR 1.2. */
function makeEntry(reader: SessionReader, details: FlowDetails, exchange: HttpExchange, omitted: Omitted, limit: number): Record<string, unknown> {
  const timings = harTimings(details, exchange)
  const comments: string[] = []
  return {
    startedDateTime: isoTime(entryStart(details, exchange)),
    time: harTime(timings),
    request: { ...harRequest(exchange), ...requestBody(reader, details.row.id, exchange, omitted, limit, comments) },
    response: { ...harResponse(exchange), content: responseContent(reader, details.row.id, exchange, omitted, limit, comments) },
    cache: {},
    timings,
    serverIPAddress: details.row.server.address.split('%', 1)[0],
    connection: String(details.row.id),
    ...ownFields(details, exchange),
    ...(comments.length === 0 ? {} : { comment: comments.join('; ') }),
  }
}

function requestBody(reader: SessionReader, flow: number, exchange: HttpExchange, omitted: Omitted, limit: number, comments: string[]): Record<string, unknown> {
  const { request } = exchange
  if (request.body.length === 0) return {}
  const mimeType = headerValue(request.headers, 'content-type') ?? ''
  const body = gatherBody(reader, flow, exchange.index, 'request', false, limit)
  if (request.body.truncated) {
    omitted.cut++
    comments.push('the request body is not whole')
  }
  if (body.bytes === undefined) {
    omitted.big++
    comments.push(`request body of ${body.size} bytes left out`)
    return { postData: { mimeType, text: '' } }
  }
  const text = asText(body.bytes)
  // HAR 1.2 has no encoding for what is sent: `_content` is what others use for it.
  if (text === undefined) return { postData: { mimeType, text: '' }, _content: { text: encodeBase64(body.bytes), encoding: 'base64', size: body.size } }
  return { postData: { mimeType, text } }
}

function responseContent(reader: SessionReader, flow: number, exchange: HttpExchange, omitted: Omitted, limit: number, comments: string[]): Record<string, unknown> {
  const { response } = exchange
  const mimeType = (response && headerValue(response.headers, 'content-type')) ?? 'application/octet-stream'
  if (response === undefined || response.body.length === 0) return { size: 0, mimeType }
  let body = gatherBody(reader, flow, exchange.index, 'response', true, limit)
  const own: Record<string, unknown> = {}
  if (response.body.truncated) {
    omitted.cut++
    comments.push('the response body is not whole')
  } else if (body.error !== undefined) {
    omitted.undecoded++
    comments.push(`the response body stands here as it was sent, since it could not be decoded: ${body.error}`)
    body = gatherBody(reader, flow, exchange.index, 'response', false, limit)
    own['_encoded'] = headerValue(response.headers, 'content-encoding')
  } else if (headerValue(response.headers, 'content-encoding') !== undefined) {
    own['compression'] = body.size - response.body.length
  }
  if (body.bytes === undefined) {
    omitted.big++
    comments.push(`response body of ${body.size} bytes left out`)
    return { size: body.size, mimeType, ...own }
  }
  const text = asText(body.bytes)
  return text === undefined ? { size: body.size, mimeType, text: encodeBase64(body.bytes), encoding: 'base64', ...own } : { size: body.size, mimeType, text, ...own }
}

/** Where each entry lies, in three flat lists: sorting by time must not hold what entries hold. */
class EntryOrder {
  /** Microseconds since the epoch: exact in a double. */
  private readonly times: number[] = []
  private readonly flows: number[] = []
  private readonly indices: number[] = []
  add(time: bigint, flow: number, index: number): void {
    this.times.push(Number(time / 1000n))
    this.flows.push(flow)
    this.indices.push(index)
  }
  get size(): number {
    return this.times.length
  }
  *sorted(): Generator<readonly [flow: number, index: number]> {
    const order = Uint32Array.from(this.times.keys())
    const { times, flows, indices } = this
    order.sort((a, b) => (times[a] as number) - (times[b] as number) || (flows[a] as number) - (flows[b] as number) || (indices[a] as number) - (indices[b] as number))
    for (const at of order) yield [flows[at] as number, indices[at] as number]
  }
}

/**
 * HAR 1.2, entries oldest first. Each HTTP exchange is an entry; TLS and other flows are none and are counted in the notes. A first pass
 * finds the order, a second one writes: memory is 24 bytes an entry and one body.
 */
export function* exportHar(reader: SessionReader, wish: ExportWish & { readonly version: string; readonly bodyLimit?: number }): ExportSteps {
  const limit = wish.bodyLimit ?? harBodyLimit
  const order = new EntryOrder()
  let flows = 0
  const others: Record<FlowProtocol, number> = { tls: 0, quic: 0, dns: 0, raw: 0, empty: 0, http: 0 }
  for (const row of reader.flows(wish.filter)) {
    flows++
    if (row.http === undefined) {
      others[row.protocol]++
      continue
    }
    const details = reader.details(row.id, 0, 1)
    for (const exchange of reader.exchanges(row.id)) order.add(BigInt(entryStart(details, exchange)), row.id, exchange.index)
    yield ''
  }
  const omitted: Omitted = { big: 0, cut: 0, undecoded: 0 }
  yield `{"log":{"version":"1.2","creator":{"name":"Sluice","version":${JSON.stringify(wish.version)}},"pages":[],"entries":[`
  let entries = 0
  for (const [flow, index] of order.sorted()) {
    const details = reader.details(flow, index, 1)
    const [exchange] = details.exchanges
    // A live flow may have gone over to another reading meanwhile.
    if (exchange === undefined) continue
    yield `${entries === 0 ? '' : ','}\n${JSON.stringify(makeEntry(reader, details, exchange, omitted, limit))}`
    entries++
    wish.onProgress?.(entries, order.size)
  }
  const notes = harNotes(others, omitted, limit)
  yield `\n]${notes.length === 0 ? '' : `,"comment":${JSON.stringify(notes.join('; '))}`}}}\n`
  return { flows, entries, notes }
}

function harNotes(others: Readonly<Record<FlowProtocol, number>>, omitted: Omitted, limit: number): string[] {
  const notes: string[] = []
  const is = (count: number): string => (count === 1 ? 'is' : 'are')
  if (others.tls > 0) notes.push(`${counted(others.tls, 'TLS flow')} ${is(others.tls)} not in it: what they carried is encrypted`)
  if (others.quic > 0) notes.push(`${counted(others.quic, 'QUIC flow')} ${is(others.quic)} not in it: what they carried is encrypted`)
  const raw = others.raw + others.empty + others.http + others.dns
  if (raw > 0) notes.push(`${counted(raw, 'flow')} without an HTTP request ${is(raw)} not in it`)
  if (omitted.big > 0) notes.push(`${counted(omitted.big, 'body', 'bodies')} of more than ${limit / 1024 / 1024} MiB left out`)
  if (omitted.cut > 0) notes.push(`${counted(omitted.cut, 'body', 'bodies')} not whole in the record`)
  if (omitted.undecoded > 0) notes.push(`${counted(omitted.undecoded, 'body', 'bodies')} could not be decoded and ${is(omitted.undecoded)} in it as sent`)
  return notes
}
