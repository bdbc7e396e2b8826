import type { Bid, DissectContext, Dissector, DissectorKind, Findings } from './dissector.ts'
import { Undecodable } from './dissector.ts'
import type { ClientHello, ServerHello } from './tlsHello.ts'
import { readClientHello, readServerHello } from './tlsHello.ts'
import { tlsAlertName, tlsCipherName, tlsVersionName } from './tlsNames.ts'
import type { Direction, TlsFacts } from '../flow/flow.ts'

/** A hello is at most this long here; the protocol would allow 16 MiB, the wild stays below 4 KiB. */
const helloLimit = 64 * 1024
const recordLimit = 16_384 + 2048

/**
 * One direction's records up to its hello: handshake messages are put together across records and segments. Holds one unfinished
 * hello at most.
 */
class HelloReader {
  private readonly header = new Uint8Array(5)
  private headerLength = 0
  private recordLeft = 0
  private recordType = 0
  private handshake = new Uint8Array(0)
  private length = 0
  private alertBytes: number[] = []
  done = false
  private readonly wanted: number
  private readonly onHello: (body: Uint8Array) => boolean
  private readonly onAlert: (code: number) => void

  /** `onHello` says whether that was the last one wanted. */
  constructor(wanted: number, onHello: (body: Uint8Array) => boolean, onAlert: (code: number) => void) {
    this.wanted = wanted
    this.onHello = onHello
    this.onAlert = onAlert
  }

  held(): number {
    return this.length
  }

  stop(): void {
    this.done = true
    this.handshake = new Uint8Array(0)
    this.length = 0
  }

  data(bytes: Uint8Array): void {
    let at = 0
    while (at < bytes.length && !this.done) {
      if (this.recordLeft === 0) {
        this.header[this.headerLength++] = bytes[at++]!
        if (this.headerLength === 5) this.beginRecord()
        continue
      }
      const take = Math.min(this.recordLeft, bytes.length - at)
      const piece = bytes.subarray(at, at + take)
      at += take
      this.recordLeft -= take
      if (this.recordType === 22) this.readHandshake(piece)
      else if (this.recordType === 21) this.readAlert(piece)
    }
  }

  private beginRecord(): void {
    const [type, major, , high, low] = this.header
    this.headerLength = 0
    this.recordType = type!
    this.recordLeft = (high! << 8) | low!
    if (type! < 20 || type! > 24 || major !== 3 || this.recordLeft > recordLimit) throw new Undecodable('a TLS record that is none')
    // Encrypted data before a hello: nothing more to learn here.
    if (type === 23) this.stop()
  }

  private readAlert(piece: Uint8Array): void {
    for (const byte of piece.subarray(0, 3)) this.alertBytes.push(byte)
    if (this.recordLeft === 0) {
      if (this.alertBytes.length === 2) this.onAlert(this.alertBytes[1]!)
      this.stop()
    }
  }

  private readHandshake(piece: Uint8Array): void {
    const need = this.length + piece.length
    if (need > helloLimit + recordLimit) throw new Undecodable('a TLS hello longer than 64 KiB')
    if (need > this.handshake.length) {
      const larger = new Uint8Array(Math.max(need, this.handshake.length * 2))
      larger.set(this.handshake.subarray(0, this.length))
      this.handshake = larger
    }
    this.handshake.set(piece, this.length)
    this.length = need
    let at = 0
    while (!this.done && this.length - at >= 4) {
      const size = (this.handshake[at + 1]! << 16) | (this.handshake[at + 2]! << 8) | this.handshake[at + 3]!
      if (size > helloLimit) throw new Undecodable('a TLS hello longer than 64 KiB')
      if (this.length - at < 4 + size) break
      if (this.handshake[at] !== this.wanted) {
        // What is no hello ends the search: HelloRequest and the like never come before it.
        this.stop()
        return
      }
      if (this.onHello(this.handshake.subarray(at + 4, at + 4 + size))) {
        this.stop()
        return
      }
      at += 4 + size
    }
    if (at > 0) {
      this.handshake.copyWithin(0, at, this.length)
      this.length -= at
    }
  }
}

/** TLS as far as it is in the clear: both hellos (RFC 8446, RFC 5246) and alerts before encryption. */
class TlsDissector implements Dissector {
  private client: ClientHello | null = null
  private server: ServerHello | null = null
  private alert: number | null = null
  private readonly up: HelloReader
  private readonly down: HelloReader

  constructor() {
    const onAlert = (code: number): void => { this.alert ??= code }
    this.up = new HelloReader(1, (body) => { this.client = readClientHello(body); return true }, onAlert)
    this.down = new HelloReader(2, (body) => { this.server = readServerHello(body); return !this.server.retry }, onAlert)
  }

  data(direction: Direction, _offset: number, bytes: Uint8Array): void {
    if (direction === 'up') this.up.data(bytes)
    else this.down.data(bytes)
  }

  gap(direction: Direction): void {
    const reader = direction === 'up' ? this.up : this.down
    if (reader.done) return
    reader.stop()
    if (direction === 'up') throw new Undecodable('part of the TLS hello was not recorded')
  }

  end(): void {
    // Nothing depends on the end of a direction.
  }

  close(): void {
    if (this.client === null) throw new Undecodable('its TLS hello never ended')
  }

  held(): number {
    return this.up.held() + this.down.held()
  }

  findings(): Findings | null {
    if (this.client === null) return null
    const { sni, alpn: offered, version } = this.client
    const name = tlsVersionName(this.server?.version ?? version)
    const tls: TlsFacts = {
      alpnOffered: offered, version: name, versionOffered: this.server === null,
      ...(sni === undefined ? {} : { sni }),
      ...(this.server?.alpn === undefined ? {} : { alpn: this.server.alpn }),
      ...(this.server === null ? {} : { cipher: tlsCipherName(this.server.cipher) }),
    }
    const protocols = this.server?.alpn ?? offered.join(',')
    const words = [this.server === null ? `${name} offered` : name, sni ?? '', protocols, this.alert === null ? '' : `alert ${tlsAlertName(this.alert)}`]
    return { info: words.filter((word) => word !== '').join(' '), tls, ...(sni === undefined ? {} : { name: sni }) }
  }
}

/** A record of type handshake, version 3.x, holding the beginning of a ClientHello. */
function bidTls(up: Uint8Array, down: Uint8Array): Bid {
  if (up.length === 0) return down.length === 0 ? 'more' : 'no'
  const expected = [0x16, 0x03]
  for (const [index, byte] of expected.entries()) {
    if (index >= up.length) return 'more'
    if (up[index] !== byte) return 'no'
  }
  if (up.length < 6) return 'more'
  const length = (up[3]! << 8) | up[4]!
  return up[2]! <= 4 && length > 0 && length <= recordLimit && up[5] === 1 ? 'mine' : 'no'
}

export const tlsKind: DissectorKind = { protocol: 'tls', bid: bidTls, make: (_context: DissectContext) => new TlsDissector() }
