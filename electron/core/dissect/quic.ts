import type { DatagramContext, DatagramDissector, DatagramFindings, DatagramKind } from './datagram.ts'
import { isKnownQuicVersion, quicVersionName, readQuicHeader, readVarint } from './quicHeader.ts'
import type { QuicHeader } from './quicHeader.ts'
import { readClientHello } from './tlsHello.ts'
import type { ClientHello } from './tlsHello.ts'
import type { Direction, QuicFacts } from '../flow/flow.ts'

/** A hello with post-quantum keys needs two packets; nobody sends longer ones. */
const helloLimit = 16 * 1024
/** Initial packets of the client looked into: enough for a hello sent twice. */
const initialLimit = 16
/** Stretches of it that came out of order, as Chrome shuffles them. */
const pieceLimit = 128
const packetsADatagram = 8

/**
 * QUIC as far as it is open to anybody: the long headers, and the client's hello, whose keys follow from the connection id it chose (RFC 9001, 5.2). What
 * comes later is encrypted. Holds the pieces of one unfinished hello at most.
 */
class QuicDissector implements DatagramDissector {
  private readonly context: DatagramContext
  private version: number | null = null
  private destinationId = new Uint8Array(0)
  private sourceId = new Uint8Array(0)
  private hello: ClientHello | null = null
  private pieces: { readonly offset: number; readonly bytes: Uint8Array }[] = []
  private heldBytes = 0
  private initials = 0
  private retried = false
  private versionsOffered: string[] | null = null

  constructor(context: DatagramContext) {
    this.context = context
  }

  datagram(direction: Direction, bytes: Uint8Array): void {
    let rest = bytes
    for (let count = 0; count < packetsADatagram && rest.length > 0; count++) {
      const header = readQuicHeader(rest)
      if (header === null) return
      rest = header.rest
      if (direction === 'down') this.fromServer(header)
      else this.fromClient(header)
    }
  }

  private fromServer({ kind, versions }: QuicHeader): void {
    if (kind === 'retry') this.retried = true
    else if (kind === 'negotiation') this.versionsOffered ??= versions.map(quicVersionName)
  }

  private fromClient(header: QuicHeader): void {
    if (header.kind === 'negotiation') return
    if (this.version === null) {
      this.version = header.version
      this.destinationId = header.destinationId.slice()
      this.sourceId = header.sourceId.slice()
    } else if (this.versionsOffered !== null && header.version !== this.version) {
      // The client begins anew with a version the server speaks.
      this.version = header.version
      this.destinationId = header.destinationId.slice()
      this.release()
    }
    if (header.kind !== 'initial' || this.hello !== null || this.initials >= initialLimit) return
    this.initials++
    const { version, packet, numberOffset } = header
    const open = (destinationId: Uint8Array): Uint8Array | null => this.context.decoders.openInitial({ version, destinationId, packet, numberOffset })
    // After a Retry the keys come from the id the server gave, which the client's packets bear from then on.
    const frames = open(this.destinationId) ?? (this.retried ? open(header.destinationId) : null)
    if (frames !== null) this.readFrames(frames)
  }

  /** CRYPTO frames among those an Initial may have (RFC 9000, 12.4). */
  private readFrames(frames: Uint8Array): void {
    for (let at = 0; at < frames.length; ) {
      const type = frames[at]!
      at++
      if (type === 0 || type === 1) continue // padding, ping
      if (type !== 6) {
        const next = type === 2 || type === 3 ? skipAck(frames, at, type === 3) : null
        if (next === null) return
        at = next
        continue
      }
      const offset = readVarint(frames, at)
      const length = offset === null ? null : readVarint(frames, offset.next)
      if (offset === null || length === null || length.value > frames.length - length.next) return
      at = length.next + length.value
      this.keep(offset.value, frames.subarray(length.next, at))
      if (this.hello !== null) return
    }
    this.assemble()
  }

  private keep(offset: number, bytes: Uint8Array): void {
    if (bytes.length === 0 || offset + bytes.length > helloLimit || this.pieces.length >= pieceLimit) return
    if (this.pieces.some((piece) => piece.offset === offset && piece.bytes.length >= bytes.length)) return
    this.pieces.push({ offset, bytes: bytes.slice() })
    this.heldBytes += bytes.length
  }

  private assemble(): void {
    const stream = new Uint8Array(Math.min(helloLimit, this.pieces.reduce((most, piece) => Math.max(most, piece.offset + piece.bytes.length), 0)))
    let known = 0
    for (const { offset, bytes } of [...this.pieces].sort((a, b) => a.offset - b.offset)) {
      if (offset > known) break
      stream.set(bytes, offset)
      known = Math.max(known, offset + bytes.length)
    }
    if (known < 4 || stream[0] !== 1) return
    const size = (stream[1]! << 16) | (stream[2]! << 8) | stream[3]!
    if (known < 4 + size) return
    try {
      this.hello = readClientHello(stream.subarray(4, 4 + size))
    } catch {
      this.initials = initialLimit // no hello: not looked for again
    }
    this.release()
  }

  held(): number {
    return this.heldBytes
  }
  release(): void {
    this.pieces = []
    this.heldBytes = 0
  }

  findings(): DatagramFindings | null {
    const { version, hello } = this
    if (version === null) return null
    const quic: QuicFacts = {
      version: quicVersionName(version), destinationId: hex(this.destinationId), sourceId: hex(this.sourceId), alpnOffered: hello?.alpn ?? [],
      ...(hello?.sni === undefined ? {} : { sni: hello.sni }), ...(this.retried ? { retried: true as const } : {}),
      ...(this.versionsOffered === null ? {} : { versionsOffered: this.versionsOffered }),
    }
    const info = [quic.version, quic.sni, quic.alpnOffered.join(' ')].filter((part) => part !== undefined && part !== '').join(' ')
    return { info, quic, ...(quic.sni === undefined ? {} : { name: quic.sni }) }
  }
}

/** Where an ACK frame ends; null when it is cut. */
function skipAck(frames: Uint8Array, start: number, counts: boolean): number | null {
  let at = start
  const next = (): number | null => {
    const varint = readVarint(frames, at)
    if (varint === null) return null
    at = varint.next
    return varint.value
  }
  if (next() === null || next() === null) return null
  const ranges = next()
  if (ranges === null || ranges > frames.length || next() === null) return null
  for (let index = 0; index < 2 * ranges + (counts ? 3 : 0); index++) if (next() === null) return null
  return at
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

export const quicKind: DatagramKind = {
  protocol: 'quic',
  bid(direction, bytes, { server }) {
    if (direction !== 'up') return 'no'
    const header = readQuicHeader(bytes)
    if (header === null || header.kind === 'negotiation' || header.kind === 'retry') return 'no'
    // A client's first datagram is padded to 1200 bytes (RFC 9000, 14.1); a version nobody knows is believed only where QUIC is at home.
    if (header.kind === 'unknown') return bytes.length >= 1200 && server.port === 443 ? 'mine' : 'no'
    return isKnownQuicVersion(header.version) && (bytes.length >= 1200 || server.port === 443) ? 'mine' : 'no'
  },
  make: (context) => new QuicDissector(context),
}
