import { Undecodable } from './dissector.ts'
import { headerValues } from './httpHead.ts'
import type { HttpHeader } from '../flow/flow.ts'

/** How a message's body ends (RFC 9112 6.3). */
export type Framing =
  | { readonly kind: 'none' }
  | { readonly kind: 'length'; readonly length: number; readonly remark?: string }
  | { readonly kind: 'chunked'; readonly remark?: string }
  | { readonly kind: 'close' }

/** The one Content-Length, or undefined. Several equal ones count as one; different or malformed ones cannot be followed. */
function contentLength(headers: readonly HttpHeader[]): number | undefined {
  const values = new Set(headerValues(headers, 'content-length').flatMap((value) => value.split(',').map((item) => item.trim())))
  if (values.size === 0) return undefined
  const [value] = values
  if (values.size > 1 || !/^[0-9]{1,15}$/.test(value!)) throw new Undecodable('a Content-Length that contradicts itself')
  return Number(value)
}

/** Codings in order, or null without the header. */
function transferCodings(headers: readonly HttpHeader[]): string[] | null {
  const values = headerValues(headers, 'transfer-encoding')
  if (values.length === 0) return null
  return values.flatMap((value) => value.split(',')).map((item) => item.split(';')[0]!.trim().toLowerCase()).filter((item) => item !== '')
}

const both = 'it had both Transfer-Encoding and Content-Length; the former was followed'

export function requestFraming(headers: readonly HttpHeader[]): Framing {
  const codings = transferCodings(headers)
  if (codings !== null) {
    if (codings.at(-1) !== 'chunked') throw new Undecodable('a request body of unknown length')
    return headerValues(headers, 'content-length').length > 0 ? { kind: 'chunked', remark: both } : { kind: 'chunked' }
  }
  const length = contentLength(headers)
  return length === undefined || length === 0 ? { kind: 'none' } : { kind: 'length', length }
}

export function responseFraming(method: string, status: number, headers: readonly HttpHeader[]): Framing {
  if (method === 'HEAD' || status === 204 || status === 304 || status < 200) return { kind: 'none' }
  const codings = transferCodings(headers)
  if (codings !== null) {
    if (codings.at(-1) !== 'chunked') return { kind: 'close' }
    return headerValues(headers, 'content-length').length > 0 ? { kind: 'chunked', remark: both } : { kind: 'chunked' }
  }
  const length = contentLength(headers)
  if (length === undefined) return { kind: 'close' }
  return length === 0 ? { kind: 'none' } : { kind: 'length', length }
}
