/** Long header of a QUIC packet (RFC 8999; RFC 9000, 17.2; RFC 9369). Views into the datagram. */
export interface QuicHeader {
  readonly version: number
  readonly kind: 'initial' | '0-rtt' | 'handshake' | 'retry' | 'negotiation' | 'unknown'
  readonly destinationId: Uint8Array
  readonly sourceId: Uint8Array
  /** Where the packet number begins, counted from the packet's first byte; 0 where there is none or it is not known. */
  readonly numberOffset: number
  /** The packet within its datagram: several may share one. */
  readonly packet: Uint8Array
  /** What follows in the datagram. */
  readonly rest: Uint8Array
  /** Of a version negotiation. */
  readonly versions: readonly number[]
}

export const quicVersion1 = 1
export const quicVersion2 = 0x6b33_43cf
const isDraft = (version: number): boolean => version >= 0xff00_001d && version <= 0xff00_0022
/** Versions whose packets are laid out as RFC 9000 says. */
export function isKnownQuicVersion(version: number): boolean {
  return version === quicVersion1 || version === quicVersion2 || isDraft(version)
}

/** "QUIC 1", "QUIC draft-29", "QUIC 0x1a2a3a4a". */
export function quicVersionName(version: number): string {
  if (version === quicVersion1) return 'QUIC 1'
  if (version === quicVersion2) return 'QUIC 2'
  return isDraft(version) ? `QUIC draft-${String(version & 0xff)}` : `QUIC 0x${version.toString(16).padStart(8, '0')}`
}

const kinds = ['initial', '0-rtt', 'handshake', 'retry'] as const
const idLimit = 20
const none = new Uint8Array(0)

/** Reads the first packet of a datagram; null when it has no long header or is cut. Never throws. */
export function readQuicHeader(bytes: Uint8Array): QuicHeader | null {
  if (bytes.length < 7 || (bytes[0]! & 0x80) === 0) return null
  const version = ((bytes[1]! << 24) | (bytes[2]! << 16) | (bytes[3]! << 8) | bytes[4]!) >>> 0
  const destinationLength = bytes[5]!
  const sourceAt = 6 + destinationLength
  const sourceLength = bytes[sourceAt]
  if (destinationLength > idLimit || sourceLength === undefined || sourceLength > idLimit) return null
  let at = sourceAt + 1 + sourceLength
  if (at > bytes.length) return null
  const ids = { version, destinationId: bytes.subarray(6, sourceAt), sourceId: bytes.subarray(sourceAt + 1, at) }
  const whole = { numberOffset: 0, packet: bytes, rest: none, versions: [] }
  if (version === 0) {
    const versions: number[] = []
    for (; at + 4 <= bytes.length && versions.length < 32; at += 4) versions.push(((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0)
    return { ...ids, ...whole, kind: 'negotiation', versions }
  }
  // The fixed bit may be greased (RFC 9287), but not in a client's first packet, which is what matters here.
  if (!isKnownQuicVersion(version)) return { ...ids, ...whole, kind: 'unknown' }
  if ((bytes[0]! & 0x40) === 0) return null
  const type = (bytes[0]! >> 4) & 3
  const kind = kinds[version === quicVersion2 ? (type + 3) & 3 : type]!
  if (kind === 'retry') return { ...ids, ...whole, kind }
  if (kind === 'initial') {
    const token = readVarint(bytes, at)
    if (token === null || token.value > bytes.length - token.next) return null
    at = token.next + token.value
  }
  const length = readVarint(bytes, at)
  if (length === null || length.value > bytes.length - length.next) return null
  const end = length.next + length.value
  return { ...ids, kind, numberOffset: length.next, packet: bytes.subarray(0, end), rest: bytes.subarray(end), versions: [] }
}

/** RFC 9000, 16. Null when cut, or beyond what a number holds exactly. */
export function readVarint(bytes: Uint8Array, at: number): { readonly value: number; readonly next: number } | null {
  const first = bytes[at]
  if (first === undefined) return null
  const size = 1 << (first >> 6)
  if (at + size > bytes.length) return null
  let value = first & 0x3f
  for (let index = 1; index < size; index++) value = value * 256 + bytes[at + index]!
  return Number.isSafeInteger(value) ? { value, next: at + size } : null
}
