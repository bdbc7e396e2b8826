import { blockTypes, packetFlags } from './pcapngFormat.ts'
import type { CaptureBlock } from './readBlocks.ts'
import type { Direction, Transport } from '../flow/flow.ts'

/** A TCP segment or a UDP datagram in an Enhanced Packet Block. Views into the block, valid as long as it is. */
export interface CapturedPacket {
  readonly transport: Transport
  /** Nanoseconds since the epoch. */
  readonly time: bigint
  /** 4 or 16 bytes. */
  readonly from: Uint8Array
  readonly fromPort: number
  readonly to: Uint8Array
  readonly toPort: number
  /** These three are 0 for UDP. */
  readonly sequence: number
  readonly acknowledgement: number
  /** As `tcpFlags`. */
  readonly flags: number
  /** By epb_flags, if the block says it. */
  readonly direction: Direction | undefined
  readonly payload: Uint8Array
  /** Where the payload begins in the file. */
  readonly payloadOffset: number
  /** The whole IP packet. */
  readonly packet: Uint8Array
}

/** The direction in the block's epb_flags option (code 2). Options lie behind the padded packet. */
function readDirection(view: DataView, start: number): Direction | undefined {
  let at = start
  while (at + 4 <= view.byteLength) {
    const code = view.getUint16(at, true)
    const length = view.getUint16(at + 2, true)
    if (code === 0 || at + 4 + length > view.byteLength) return undefined
    if (code === 2 && length === 4) {
      const bound = view.getUint32(at + 4, true) & 3
      return bound === packetFlags.outbound ? 'up' : bound === packetFlags.inbound ? 'down' : undefined
    }
    at += 4 + ((length + 3) & ~3)
  }
  return undefined
}

const transports: Readonly<Record<number, Transport>> = { 6: 'tcp', 17: 'udp' }

/**
 * Reads an Enhanced Packet Block of raw IP with TCP or UDP inside (RFC 791, RFC 8200, RFC 9293, RFC 768). Null for every other block and for any
 * packet that is cut, fragmented, or lies about its lengths. Never throws.
 */
export function decodePacket(block: CaptureBlock): CapturedPacket | null {
  const { body } = block
  if (block.type !== blockTypes.enhancedPacket || body.length < 20) return null
  const view = new DataView(body.buffer, body.byteOffset, body.length)
  const captured = view.getUint32(12, true)
  if (view.getUint32(0, true) !== 0 || view.getUint32(4, true) > 0x7fff_ffff || captured > body.length - 20) return null
  const version = (body[20] ?? 0) >> 4
  let header: number
  let total: number
  let addresses: number
  let addressLength: number
  let transport: Transport | undefined
  if (version === 4 && captured >= 20) {
    header = (body[20]! & 15) * 4
    total = view.getUint16(22)
    addresses = 32
    addressLength = 4
    transport = transports[body[29]!]
    if (header < 20 || (view.getUint16(26) & 0x3fff) !== 0) return null
  } else if (version === 6 && captured >= 40) {
    header = 40
    total = 40 + view.getUint16(24)
    addresses = 28
    addressLength = 16
    transport = transports[body[26]!]
  } else {
    return null
  }
  const isTcp = transport === 'tcp'
  if (transport === undefined || total > captured || total < header + (isTcp ? 20 : 8)) return null
  const inner = 20 + header
  const innerHeader = isTcp ? (body[inner + 12]! >> 4) * 4 : 8
  if (innerHeader < (isTcp ? 20 : 8) || header + innerHeader > total) return null
  if (!isTcp && view.getUint16(inner + 4) !== total - header) return null
  const payload = inner + innerHeader
  return {
    transport,
    time: (BigInt(view.getUint32(4, true)) << 32n) | BigInt(view.getUint32(8, true)),
    from: body.subarray(addresses, addresses + addressLength),
    fromPort: view.getUint16(inner),
    to: body.subarray(addresses + addressLength, addresses + 2 * addressLength),
    toPort: view.getUint16(inner + 2),
    sequence: isTcp ? view.getUint32(inner + 4) : 0,
    acknowledgement: isTcp ? view.getUint32(inner + 8) : 0,
    flags: isTcp ? body[inner + 13]! : 0,
    direction: readDirection(view, 20 + ((captured + 3) & ~3)),
    payload: body.subarray(payload, 20 + total),
    payloadOffset: block.offset + 8 + payload,
    packet: body.subarray(20, 20 + total),
  }
}
