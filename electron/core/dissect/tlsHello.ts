import { Undecodable } from './dissector.ts'
import { decodeLatin1 } from '../capture/utf8.ts'
import { cleanHostName } from '../flow/hostName.ts'

export interface ClientHello {
  readonly sni?: string
  readonly alpn: readonly string[]
  /** The highest version offered. */
  readonly version: number
}
export interface ServerHello {
  readonly version: number
  readonly cipher: number
  readonly alpn?: string
  /** RFC 8446 4.1.4: not yet the answer, but version and cipher stand. */
  readonly retry: boolean
}

/** A cursor that never leaves its bytes: reading past them is Undecodable. */
class Cursor {
  private at: number
  private readonly bytes: Uint8Array
  private readonly end: number
  constructor(bytes: Uint8Array, start = 0, end = bytes.length) {
    this.bytes = bytes
    this.at = start
    this.end = end
  }
  get left(): number {
    return this.end - this.at
  }
  number(size: 1 | 2 | 3): number {
    if (this.left < size) throw new Undecodable('a TLS hello shorter than it says')
    let value = 0
    for (let index = 0; index < size; index++) value = value * 256 + this.bytes[this.at++]!
    return value
  }
  take(length: number): Uint8Array {
    if (this.left < length) throw new Undecodable('a TLS hello shorter than it says')
    this.at += length
    return this.bytes.subarray(this.at - length, this.at)
  }
  /** A vector with its length before it. */
  vector(size: 1 | 2): Cursor {
    const length = this.number(size)
    if (this.left < length) throw new Undecodable('a TLS hello shorter than it says')
    this.at += length
    return new Cursor(this.bytes, this.at - length, this.at)
  }
}

/** RFC 8701: values that mean nothing, sprinkled in so that servers stay tolerant. */
function isGrease(value: number): boolean {
  return (value & 0x0f0f) === 0x0a0a && value >> 8 === (value & 0xff)
}

/** Printable ASCII, at most 32 characters: protocol names are tokens (RFC 7301); others are left out. */
function protocolName(bytes: Uint8Array): string | undefined {
  const text = decodeLatin1(bytes)
  return text.length > 0 && text.length <= 32 && /^[!-~]+$/.test(text) ? text : undefined
}

function* extensions(cursor: Cursor): Generator<[number, Cursor]> {
  if (cursor.left === 0) return
  const all = cursor.vector(2)
  while (all.left > 0) yield [all.number(2), all.vector(2)]
}

function readAlpn(cursor: Cursor): string[] {
  const names: string[] = []
  const list = cursor.vector(2)
  while (list.left > 0) {
    const item = list.vector(1)
    const bytes = item.take(item.left)
    if (bytes.length === 2 && isGrease((bytes[0]! << 8) | bytes[1]!)) continue
    const name = protocolName(bytes)
    if (name !== undefined && names.length < 16) names.push(name)
  }
  return names
}

function readServerName(cursor: Cursor): string | undefined {
  const list = cursor.vector(2)
  while (list.left > 0) {
    const type = list.number(1)
    const name = list.vector(2)
    if (type === 0) return cleanHostName(decodeLatin1(name.take(name.left)))
  }
  return undefined
}

/** Body of a ClientHello (RFC 8446 4.1.2, RFC 5246 7.4.1.2), without its four bytes of handshake header. Throws Undecodable. */
export function readClientHello(body: Uint8Array): ClientHello {
  const cursor = new Cursor(body)
  let version = cursor.number(2)
  cursor.take(32)
  cursor.vector(1)
  cursor.vector(2)
  cursor.vector(1)
  let sni: string | undefined
  let alpn: string[] = []
  for (const [type, content] of extensions(cursor)) {
    if (type === 0 && content.left > 0) sni ??= readServerName(content)
    else if (type === 16) alpn = readAlpn(content)
    else if (type === 43) {
      const list = content.vector(1)
      while (list.left >= 2) {
        const offered = list.number(2)
        if (!isGrease(offered) && offered >> 8 === 3) version = Math.max(version, offered)
      }
    }
  }
  if (version >> 8 !== 3) throw new Undecodable('a TLS hello of an unknown version')
  return { alpn, version, ...(sni === undefined ? {} : { sni }) }
}

/** SHA-256 of "HelloRetryRequest" (RFC 8446 4.1.3), first eight bytes. */
const retryRandom = [0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11]

/** Body of a ServerHello, as above. */
export function readServerHello(body: Uint8Array): ServerHello {
  const cursor = new Cursor(body)
  let version = cursor.number(2)
  const random = cursor.take(32)
  cursor.vector(1)
  const cipher = cursor.number(2)
  cursor.number(1)
  let alpn: string | undefined
  for (const [type, content] of extensions(cursor)) {
    if (type === 43) version = content.number(2)
    else if (type === 16) alpn = readAlpn(content)[0]
  }
  if (version >> 8 !== 3) throw new Undecodable('a TLS hello of an unknown version')
  return { version, cipher, retry: retryRandom.every((byte, index) => random[index] === byte), ...(alpn === undefined ? {} : { alpn }) }
}
