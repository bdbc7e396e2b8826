import { Undecodable } from './dissector.ts'
import { decodeLatin1, decodeUtf8 } from '../capture/utf8.ts'
import type { HttpHeader } from '../flow/flow.ts'

/** The start line and fields of an HTTP/1 message (RFC 9112). */
export interface HttpHead {
  readonly startLine: string
  readonly headers: readonly HttpHeader[]
}
export const headLimit = 256 * 1024
export const headerLimit = 1000

const tokenPattern = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/

/** Head bytes up to and with the empty line, or without it for a trailer section (then `startLine` is left empty). */
export function parseHead(bytes: Uint8Array, trailers = false): HttpHead {
  const text = bytes.some((byte) => byte >= 0x80) ? decodeUtf8(bytes) : decodeLatin1(bytes)
  const lines = text.split('\n')
  let startLine = ''
  const headers: HttpHeader[] = []
  let name = ''
  let values: string[] = []
  const flush = (): void => {
    if (name !== '') headers.push({ name, value: values.length === 1 ? values[0]! : values.filter((value) => value !== '').join(' ') })
    name = ''
    values = []
  }
  for (const [index, raw] of lines.entries()) {
    const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw
    if (index === 0 && !trailers) {
      startLine = line
    } else if (line !== '') {
      // A folded line (obs-fold) goes on with the value before it; joined once at the end, as joining each would be quadratic.
      if (line.startsWith(' ') || line.startsWith('\t')) {
        if (name === '') throw new Undecodable('a folded line before any header')
        values.push(line.trim())
        continue
      }
      flush()
      const colon = line.indexOf(':')
      const field = colon < 1 ? '' : line.slice(0, colon).trimEnd()
      if (field === '' || !tokenPattern.test(field)) throw new Undecodable('a header line that is none')
      if (headers.length >= headerLimit) throw new Undecodable(`more than ${String(headerLimit)} headers`)
      name = field
      values = [line.slice(colon + 1).trim()]
    }
  }
  flush()
  return { startLine, headers }
}

export interface RequestLine {
  readonly method: string
  readonly target: string
  readonly version: string
}

/** By first and last space, in linear time whatever lies between. */
export function parseRequestLine(line: string): RequestLine {
  const first = line.indexOf(' ')
  const last = line.trimEnd().lastIndexOf(' ')
  const method = line.slice(0, Math.max(first, 0))
  const version = line.slice(last + 1).trim()
  const target = line.slice(first + 1, Math.max(last, first + 1)).trim()
  if (method.length > 32 || !tokenPattern.test(method) || target === '') throw new Undecodable('a request line that is none')
  if (!/^HTTP\/1\.[0-9]$/.test(version)) throw new Undecodable('a request of another version than HTTP/1')
  return { method, target, version }
}

export interface StatusLine {
  readonly version: string
  readonly status: number
  readonly statusText: string
}

export function parseStatusLine(line: string): StatusLine {
  const match = /^(HTTP\/1\.[0-9]) +([1-9][0-9]{2})(?: (.*))?$/s.exec(line)
  if (match === null) throw new Undecodable('a status line that is none')
  return { version: match[1]!, status: Number(match[2]), statusText: (match[3] ?? '').trim() }
}

/** All values of a field, names without regard to case. */
export function headerValues(headers: readonly HttpHeader[], name: string): string[] {
  return headers.filter((header) => header.name.toLowerCase() === name).map((header) => header.value)
}
