import type { Bid, DissectContext, Dissector, DissectorKind, Findings } from './dissector.ts'
import { Undecodable } from './dissector.ts'
import type { ExchangeDraft } from './exchangeDraft.ts'
import { BodyPieces, emptyBody } from './exchangeDraft.ts'
import type { Framing } from './httpFraming.ts'
import { requestFraming, responseFraming } from './httpFraming.ts'
import type { HttpHead } from './httpHead.ts'
import { headerValues, parseRequestLine, parseStatusLine } from './httpHead.ts'
import { MessageReader } from './httpMessages.ts'
import { httpUrl } from './httpUrl.ts'
import { escapeText } from '../flow/escapeText.ts'
import type { Direction } from '../flow/flow.ts'
import { hostOfAuthority } from '../flow/hostName.ts'

/** Requests without an answer one connection may have: pipelining in the wild stays below a hundred. */
const outstandingLimit = 1000
const rowTargetLimit = 1000

interface Open {
  readonly draft: ExchangeDraft
  readonly headBytes: { request: number; response: number }
  requestPieces: BodyPieces
  responsePieces?: BodyPieces
  requestDone: boolean
  responseDone: boolean
}

/** HTTP/1.0 and 1.1 (RFC 9110, RFC 9112): requests and responses paired in order. */
class HttpDissector implements Dissector {
  private readonly context: DissectContext
  private readonly up: MessageReader
  private readonly down: MessageReader
  /** Not finished, oldest first. */
  private open: Open[] = []
  private count = 0
  private openBytes = 0
  private last: ExchangeDraft | null = null
  private host: string | undefined
  private closed = false
  private readonly position: Record<Direction, number> = { up: 0, down: 0 }

  constructor(context: DissectContext) {
    this.context = context
    this.up = new MessageReader({
      head: (head, size, time) => this.request(head, size, time),
      body: (offset, length, lost) => this.newest().requestPieces.add(offset, length, lost),
      done: (time, truncated) => { this.requestDone(time, truncated) },
    })
    this.down = new MessageReader({
      head: (head, size, time) => this.response(head, size, time),
      body: (offset, length, lost) => this.answering().responsePieces?.add(offset, length, lost),
      done: (time, truncated) => { this.responseDone(time, truncated) },
    })
  }

  data(direction: Direction, offset: number, bytes: Uint8Array, time: bigint): void {
    this.position[direction] = offset + bytes.length
    this[direction].data(offset, bytes, time)
    this.report()
  }

  gap(direction: Direction, offset: number, length: number, time: bigint): void {
    this.position[direction] = offset + length
    this[direction].gap(offset, length, time)
    this.report()
  }

  end(direction: Direction, time: bigint): void {
    this[direction].end(time)
    this.report()
  }

  close(time: bigint): void {
    if (this.closed) return
    this.closed = true
    this.up.end(time)
    // Until-close bodies end well only by the server's FIN, which came before; what is open now was cut.
    const body = this.open.find((open) => !open.responseDone)?.draft.response?.body
    if (this.down.busy && body !== undefined) body.truncated = true
    this.down.end(time)
    for (const { draft, requestPieces, responsePieces, requestDone, responseDone } of this.open) {
      requestPieces.flush()
      responsePieces?.flush()
      if (draft.response === undefined) draft.error ??= 'no answer'
      else if (!requestDone || !responseDone || draft.response.body.truncated) draft.error ??= 'cut short'
      this.context.sink.exchange(draft, true)
    }
    this.open = []
    this.openBytes = 0
    if (this.count === 0) throw new Undecodable('its first message head never ended')
  }

  held(): number {
    return this.up.heldBytes() + this.down.heldBytes() + this.openBytes
  }

  findings(): Findings | null {
    if (this.last === null) return null
    const { request, response, upgraded, error } = this.last
    const target = escapeText(request.target, rowTargetLimit)
    const answer = response === undefined ? (error ?? '…') : `${String(response.status)} ${escapeText(response.statusText, 60)}`.trimEnd()
    const tail = `${upgraded === undefined ? '' : `, now ${escapeText(upgraded, 40)}`}${this.count > 1 ? ` (${String(this.count)} requests)` : ''}`
    return {
      info: `${request.method} ${escapeText(request.target, 160)} → ${answer}${tail}`,
      http: { method: request.method, target, exchanges: this.count, ...(response === undefined ? {} : { status: response.status }) },
      ...(this.host === undefined ? {} : { name: this.host }),
    }
  }

  private newest(): Open {
    const open = this.open.at(-1)
    if (open === undefined) throw new Undecodable('a body without a request')
    return open
  }

  /** The oldest exchange whose response has not ended. */
  private answering(): Open {
    const open = this.open.find((candidate) => !candidate.responseDone)
    if (open === undefined) throw new Undecodable('a response without a request')
    return open
  }

  private request(head: HttpHead, size: number, time: bigint): Framing | 'wait' {
    const line = parseRequestLine(head.startLine)
    const framing = requestFraming(head.headers)
    if (this.open.length >= outstandingLimit) throw new Undecodable(`more than ${String(outstandingLimit)} requests without an answer`)
    const host = headerValues(head.headers, 'host')[0]
    this.host = (host === undefined ? undefined : hostOfAuthority(host)) ?? this.host
    const draft: ExchangeDraft = {
      index: this.count++,
      request: {
        ...line, url: httpUrl(line, host, this.context.server), headers: head.headers, headBytes: size, body: emptyBody(), startedAt: String(time),
      },
      interim: [],
    }
    if ('remark' in framing) draft.error = framing.remark
    this.open.push({
      draft, headBytes: { request: size, response: 0 }, requestDone: false, responseDone: false,
      requestPieces: new BodyPieces(draft.request.body, draft.index, 'request', this.context.sink),
    })
    this.openBytes += size
    this.last = draft
    this.context.sink.exchange(draft, false)
    // What follows CONNECT is either the tunnel or the next request, which only the answer tells.
    if (line.method !== 'CONNECT') return framing
    this.requestDone(time, false)
    return 'wait'
  }

  private requestDone(time: bigint, truncated: boolean): void {
    const open = this.newest()
    open.requestPieces.flush()
    open.draft.request.endedAt = String(time)
    if (truncated) {
      open.draft.request.body.truncated = true
      open.draft.error ??= 'the request was cut short'
    }
    open.requestDone = true
  }

  private response(head: HttpHead, size: number, time: bigint): Framing | 'raw' {
    const line = parseStatusLine(head.startLine)
    const open = this.answering()
    const { draft } = open
    if (line.status < 200 && line.status !== 101) {
      if (draft.interim.length < 100) draft.interim.push(line.status)
      open.headBytes.response = -1 // told to responseDone: this was not the answer
      return { kind: 'none' }
    }
    const { method } = draft.request
    const tunnel = line.status === 101 || (method === 'CONNECT' && line.status < 300)
    const framing: Framing = tunnel ? { kind: 'none' } : responseFraming(method, line.status, head.headers)
    draft.response = { ...line, headers: head.headers, headBytes: size, body: emptyBody(), startedAt: String(time) }
    if ('remark' in framing) draft.error ??= framing.remark
    open.responsePieces = new BodyPieces(draft.response.body, draft.index, 'response', this.context.sink)
    open.headBytes.response = size
    this.openBytes += size
    if (tunnel) {
      draft.upgraded = line.status === 101 ? (headerValues(head.headers, 'upgrade')[0] ?? 'another protocol') : 'CONNECT'
      this.up.resume(true, this.position.up, time)
      this.up.makeRaw()
      open.requestDone = true
      this.responseDone(time, false)
      return 'raw'
    }
    return framing
  }

  private responseDone(time: bigint, truncated: boolean): void {
    const open = this.answering()
    if (open.headBytes.response < 0) {
      open.headBytes.response = 0
      return
    }
    open.responsePieces?.flush()
    if (open.draft.response !== undefined) {
      open.draft.response.endedAt = String(time)
      if (truncated) {
        open.draft.response.body.truncated = true
        open.draft.error ??= 'the response was cut short'
      }
    }
    open.responseDone = true
    if (open.draft.request.method === 'CONNECT' && open.draft.upgraded === undefined) this.up.resume(false, this.position.up, time)
  }

  /** Hands over for good what is finished: always the oldest ones, as both directions go in order. */
  private report(): void {
    for (let open = this.open[0]; open !== undefined && open.requestDone && open.responseDone; open = this.open[0]) {
      this.open.shift()
      this.openBytes -= open.headBytes.request + open.headBytes.response
      this.context.sink.exchange(open.draft, true)
    }
  }
}

/** Methods are upper case in the wild; a bid on anything token-like would take text protocols for HTTP. */
function bidHttp(up: Uint8Array, down: Uint8Array): Bid {
  if (up.length === 0) return down.length === 0 ? 'more' : 'no'
  let at = 0
  while (at < up.length && (up[at] === 13 || up[at] === 10)) at++
  let method = ''
  for (; at < up.length && method.length <= 20; at++) {
    const byte = up[at]!
    if (byte === 0x20) break
    if (!((byte >= 0x41 && byte <= 0x5a) || byte === 0x2d || byte === 0x5f)) return 'no'
    method += String.fromCharCode(byte)
  }
  if (method.length > 20 || (method === '' && at > 8)) return 'no'
  if (at >= up.length) return 'more'
  if (method.length < 3) return 'no'
  if (knownMethods.has(method)) {
    if (at + 1 >= up.length) return 'more'
    if (up[at + 1] === 0x2f || up[at + 1] === 0x2a) return 'mine'
  }
  // Anything else has to show the version at the end of its first line: other text protocols have a GET too.
  const end = up.indexOf(10, at)
  if (end < 0) return 'more'
  return / HTTP\/1\.[0-9]\r?$/.test(String.fromCharCode(...up.subarray(Math.max(at, end - 11), end))) ? 'mine' : 'no'
}
const knownMethods = new Set([
  'GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH', 'PROPFIND', 'PROPPATCH', 'MKCOL', 'COPY', 'MOVE', 'LOCK',
  'UNLOCK', 'REPORT', 'SEARCH', 'PURGE', 'NOTIFY', 'SUBSCRIBE', 'UNSUBSCRIBE', 'MKCALENDAR', 'QUERY', 'LINK', 'UNLINK', 'BIND', 'ACL',
])

export const httpKind: DissectorKind = { protocol: 'http', bid: bidHttp, make: (context) => new HttpDissector(context) }
