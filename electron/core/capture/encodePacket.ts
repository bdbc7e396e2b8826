/** One TCP segment as an IP packet. */
export interface Segment {
  /** 4 or 16 bytes, both of the same length. */
  readonly from: Uint8Array
  readonly fromPort: number
  readonly to: Uint8Array
  readonly toPort: number
  readonly sequence: number
  readonly acknowledgement: number
  /** Of `tcpFlags`, or-ed. */
  readonly flags: number
  readonly payload: Uint8Array
}

const protocolOf = { tcp: 6, udp: 17 } as const

/** RFC 1071 sum of 16-bit words, not yet folded; words of at most 2^21 fit a double exactly. */
function sumWords(bytes: Uint8Array, start: number, end: number): number {
  let sum = 0
  let at = start
  for (; at + 1 < end; at += 2) sum += (bytes[at]! << 8) | bytes[at + 1]!
  if (at < end) sum += bytes[at]! << 8
  return sum
}

function foldSum(sum: number): number {
  let folded = sum
  while (folded > 0xffff) folded = Math.floor(folded / 0x1_0000) + (folded & 0xffff)
  return ~folded & 0xffff
}

/** An IP header before `length` bytes of `protocol`, in a packet with room for them. The IPv4 header checksum is right. */
function beginPacket(from: Uint8Array, to: Uint8Array, protocol: number, length: number): { readonly bytes: Uint8Array; readonly view: DataView; readonly header: number } {
  const v6 = from.length === 16
  const header = v6 ? 40 : 20
  const bytes = new Uint8Array(header + length)
  const view = new DataView(bytes.buffer)
  if (v6) {
    view.setUint32(0, 0x6000_0000)
    view.setUint16(4, length)
    bytes[6] = protocol
    bytes[7] = 64
    bytes.set(from, 8)
    bytes.set(to, 24)
  } else {
    bytes[0] = 0x45
    view.setUint16(2, bytes.length)
    view.setUint16(6, 0x4000) // do not fragment
    bytes[8] = 64
    bytes[9] = protocol
    bytes.set(from, 12)
    bytes.set(to, 16)
    view.setUint16(10, foldSum(sumWords(bytes, 0, 20)))
  }
  return { bytes, view, header }
}

/** Builds the packet. The TCP checksum is zero unless `checksum`, as in the live capture. */
export function encodePacket(segment: Segment, checksum: boolean): Uint8Array {
  const { bytes, view, header } = beginPacket(segment.from, segment.to, protocolOf.tcp, 20 + segment.payload.length)
  view.setUint16(header, segment.fromPort)
  view.setUint16(header + 2, segment.toPort)
  view.setUint32(header + 4, segment.sequence >>> 0)
  view.setUint32(header + 8, segment.acknowledgement >>> 0)
  bytes[header + 12] = 5 << 4
  bytes[header + 13] = segment.flags
  view.setUint16(header + 14, 0xffff)
  bytes.set(segment.payload, header + 20)
  if (checksum) fillChecksum(bytes)
  return bytes
}

/** A UDP datagram as an IP packet; the checksum as above. */
export function encodeDatagram(datagram: Pick<Segment, 'from' | 'fromPort' | 'to' | 'toPort' | 'payload'>, checksum: boolean): Uint8Array {
  const length = 8 + datagram.payload.length
  const { bytes, view, header } = beginPacket(datagram.from, datagram.to, protocolOf.udp, length)
  view.setUint16(header, datagram.fromPort)
  view.setUint16(header + 2, datagram.toPort)
  view.setUint16(header + 4, length)
  bytes.set(datagram.payload, header + 8)
  if (checksum) fillChecksum(bytes)
  return bytes
}

/**
 * Fills the checksum of TCP or UDP in an IP packet in place (RFC 9293 3.1, RFC 768, RFC 8200 8.1). False, and nothing touched, when it is not a whole
 * IPv4 or IPv6 packet with one of the two right behind its header.
 */
export function fillChecksum(packet: Uint8Array): boolean {
  const version = (packet[0] ?? 0) >> 4
  const header = version === 4 ? (packet[0]! & 15) * 4 : 40
  if ((version !== 4 && version !== 6) || header < 20 || packet.length < header + 8) return false
  const protocol = packet[version === 4 ? 9 : 6]!
  if (protocol !== protocolOf.tcp && protocol !== protocolOf.udp) return false
  const udp = protocol === protocolOf.udp
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length)
  const end = version === 4 ? view.getUint16(2) : 40 + view.getUint16(4)
  if (end > packet.length || end < header + (udp ? 8 : 20)) return false
  const place = header + (udp ? 6 : 16)
  view.setUint16(place, 0)
  const addresses = version === 4 ? sumWords(packet, 12, 20) : sumWords(packet, 8, 40)
  const sum = foldSum(addresses + protocol + (end - header) + sumWords(packet, header, end))
  // Zero means "none" to UDP, so a sum that comes out as zero is written as its other form.
  view.setUint16(place, udp && sum === 0 ? 0xffff : sum)
  return true
}
