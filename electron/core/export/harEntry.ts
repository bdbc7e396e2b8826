import { endpointText } from '../filter/fields.ts'
import type { FlowDetails, HttpExchange, HttpHeader, Nanoseconds } from '../flow/flow.ts'

/** Milliseconds from one time to another, never negative; 0 when one is not known. */
export function milliseconds(from: Nanoseconds | undefined, to: Nanoseconds | undefined): number {
  if (from === undefined || to === undefined) return 0
  return Math.max(0, Number((BigInt(to) - BigInt(from)) / 1000n) / 1000)
}
/** ISO 8601 with microseconds. */
export function isoTime(time: Nanoseconds): string {
  const whole = BigInt(time)
  const micros = String((whole / 1000n) % 1_000_000n).padStart(6, '0')
  return new Date(Number(whole / 1_000_000_000n) * 1000).toISOString().replace(/\.\d+Z$/, `.${micros}Z`)
}
const later = (a: Nanoseconds | undefined, b: Nanoseconds | undefined): Nanoseconds | undefined => (a === undefined ? b : b === undefined ? a : BigInt(a) > BigInt(b) ? a : b)

/** When an entry begins: the first of a flow with the connection it waited for, others with their first byte. */
export function entryStart(details: FlowDetails, exchange: HttpExchange): Nanoseconds {
  return exchange.index === 0 && details.connectedAt !== undefined ? details.row.startedAt : exchange.request.startedAt
}

export interface HarTimings {
  blocked: number
  dns: -1
  connect: number
  ssl: -1
  send: number
  wait: number
  receive: number
}

/**
 * HAR 1.2 timings. `connect` belongs to a flow's first entry; `blocked` is what the client waited with its first request on an open connection, so
 * that the sum is the whole stretch. Names were looked up before we saw anything: dns is -1, and ssl too, as plain HTTP has none.
 */
export function harTimings(details: FlowDetails, exchange: HttpExchange): HarTimings {
  const { request, response } = exchange
  const first = exchange.index === 0 && details.connectedAt !== undefined
  // Bytes may come from the client before the server took the connection.
  const begun = first ? later(request.startedAt, details.connectedAt) : request.startedAt
  const sent = later(request.endedAt ?? request.startedAt, begun)
  return {
    blocked: first ? milliseconds(details.connectedAt, begun) : -1,
    dns: -1,
    connect: first ? milliseconds(details.row.startedAt, details.connectedAt) : -1,
    ssl: -1,
    send: milliseconds(begun, sent),
    wait: milliseconds(sent, response?.startedAt),
    receive: milliseconds(later(response?.startedAt, sent), response?.endedAt),
  }
}

/** Sum of the timings that are not -1; ssl lies inside connect. */
export function harTime(timings: HarTimings): number {
  const known = [timings.blocked, timings.connect, timings.send, timings.wait, timings.receive].filter((each) => each >= 0)
  return Math.round(known.reduce((sum, each) => sum + each, 0) * 1000) / 1000
}

/** First value of a header, whatever its case. */
export function headerValue(headers: readonly HttpHeader[], name: string): string | undefined {
  return headers.find((header) => header.name.toLowerCase() === name)?.value
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return text
  }
}

export function queryString(url: string): { name: string; value: string }[] {
  const mark = url.indexOf('?')
  if (mark === -1) return []
  const query = url.slice(mark + 1).split('#', 1)[0] as string
  return query.split('&').filter((part) => part !== '').slice(0, 10_000).map((part) => {
    const equals = part.indexOf('=')
    return equals === -1 ? { name: decoded(part), value: '' } : { name: decoded(part.slice(0, equals)), value: decoded(part.slice(equals + 1)) }
  })
}

export interface HarCookie {
  name: string
  value: string
  path?: string
  domain?: string
  expires?: string
  httpOnly?: boolean
  secure?: boolean
}
const pair = (text: string): [string, string] => {
  const equals = text.indexOf('=')
  return equals === -1 ? [text.trim(), ''] : [text.slice(0, equals).trim(), text.slice(equals + 1).trim()]
}

export function requestCookies(headers: readonly HttpHeader[]): HarCookie[] {
  return headers
    .filter((header) => header.name.toLowerCase() === 'cookie')
    .flatMap((header) => header.value.split(';', 10_000))
    .map(pair)
    .filter(([name, value]) => name !== '' || value !== '')
    .map(([name, value]) => ({ name, value }))
}

export function responseCookies(headers: readonly HttpHeader[]): HarCookie[] {
  return headers.filter((header) => header.name.toLowerCase() === 'set-cookie').slice(0, 10_000).map((header) => {
    const [first = '', ...rest] = header.value.split(';', 100)
    const [name, value] = pair(first)
    const cookie: HarCookie = { name, value }
    for (const attribute of rest) {
      const [key, text] = pair(attribute)
      switch (key.toLowerCase()) {
        case 'path': cookie.path = text; break
        case 'domain': cookie.domain = text; break
        case 'httponly': cookie.httpOnly = true; break
        case 'secure': cookie.secure = true; break
        case 'expires': {
          const time = Date.parse(text)
          if (!Number.isNaN(time)) cookie.expires = new Date(time).toISOString()
        }
      }
    }
    return cookie
  })
}

/** Everything of a request but its body. `bodySize` is -1 when the body is not whole. */
export function harRequest(exchange: HttpExchange): Record<string, unknown> {
  const { request } = exchange
  return {
    method: request.method,
    url: request.url,
    httpVersion: request.version,
    cookies: requestCookies(request.headers),
    headers: request.headers,
    queryString: queryString(request.url),
    headersSize: request.headBytes,
    bodySize: request.body.truncated ? -1 : request.body.length,
  }
}

/** Everything of a response but its content; a status of 0 says there was none, as browsers write it. */
export function harResponse(exchange: HttpExchange): Record<string, unknown> {
  const { response } = exchange
  if (response === undefined) {
    return { status: 0, statusText: '', httpVersion: exchange.request.version, cookies: [], headers: [], redirectURL: '', headersSize: -1, bodySize: -1 }
  }
  return {
    status: response.status,
    statusText: response.statusText,
    httpVersion: response.version,
    cookies: responseCookies(response.headers),
    headers: response.headers,
    redirectURL: headerValue(response.headers, 'location') ?? '',
    headersSize: response.headBytes,
    bodySize: response.body.truncated ? -1 : response.body.length,
  }
}

/** Fields of our own, which begin with "_" and which strangers ignore. */
export function ownFields(details: FlowDetails, exchange: HttpExchange): Record<string, unknown> {
  const { row, process } = details
  const error = exchange.error ?? (exchange.response === undefined && exchange.upgraded === undefined ? 'no response' : undefined)
  return {
    _flow: row.id,
    _scope: row.scope,
    _client: endpointText(row.client),
    _serverPort: row.server.port,
    _process: process,
    _interim: exchange.interim.length === 0 ? undefined : exchange.interim,
    _upgraded: exchange.upgraded,
    _resourceType: exchange.upgraded?.toLowerCase() === 'websocket' ? 'websocket' : undefined,
    _error: error,
  }
}
