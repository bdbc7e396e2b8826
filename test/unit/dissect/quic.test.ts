import { createCipheriv, createHmac } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import type { DatagramContext } from '#core/dissect/datagram.ts'
import { quicKind } from '#core/dissect/quic.ts'
import { quicVersion2, readQuicHeader } from '#core/dissect/quicHeader.ts'
import { openInitial } from '#session/openInitial.ts'

/** RFC 9001, A.2: the client's Initial packet, before and after protection. */
const destinationId = Buffer.from('8394c8f03e515708', 'hex')
const rfcHello = Buffer.from(
  '060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e000500050100000000003300260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e0403050306030203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901100f088394c8f03e51570806048000ffff',
  'hex',
)
const rfcHeader = Buffer.from('c300000001088394c8f03e5157080000449e00000002', 'hex')
const rfcStart = 'c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9bd8bab936b47d92ec356c0bab7df5976d27cd449f63300099f399'

const hmac = (key: Uint8Array, data: Uint8Array): Buffer => createHmac('sha256', key).update(data).digest()
function label(secret: Uint8Array, name: string, length: number): Buffer {
  const text = Buffer.from(`tls13 ${name}`)
  return hmac(secret, Buffer.concat([Buffer.from([0, length, text.length]), text, Buffer.from([0, 1])])).subarray(0, length)
}
/** Protects frames as a client does (RFC 9001, 5.3 and 5.4), written apart from what opens them. */
function protect(frames: Uint8Array, header: Uint8Array, numberLength: number, id: Uint8Array, version: 1 | 2 = 1): Buffer {
  const salt = Buffer.from(version === 1 ? '38762cf7f55934b34d179ae6a4c80cadccbb7f0a' : '0dede3def700a6db819381be6e269dcbf9bd2ed9', 'hex')
  const secret = label(hmac(salt, id), 'client in', 32)
  const prefix = version === 1 ? 'quic' : 'quicv2'
  const nonce = Buffer.from(label(secret, `${prefix} iv`, 12))
  for (let i = 0; i < numberLength; i++) nonce[12 - numberLength + i]! ^= header[header.length - numberLength + i]!
  const cipher = createCipheriv('aes-128-gcm', label(secret, `${prefix} key`, 16), nonce)
  cipher.setAAD(header)
  const sealed = Buffer.concat([cipher.update(frames), cipher.final(), cipher.getAuthTag()])
  const mask = createCipheriv('aes-128-ecb', label(secret, `${prefix} hp`, 16), null).update(sealed.subarray(4 - numberLength, 20 - numberLength))
  const hidden = Buffer.from(header)
  hidden[0]! ^= mask[0]! & 15
  for (let i = 0; i < numberLength; i++) hidden[header.length - numberLength + i]! ^= mask[1 + i]!
  return Buffer.concat([hidden, sealed])
}
function initial(frames: Uint8Array, { id = destinationId, version = 1, number = 0 }: { id?: Uint8Array; version?: 1 | 2; number?: number } = {}): Buffer {
  const padded = Buffer.concat([frames, Buffer.alloc(Math.max(0, 1162 - frames.length))])
  const length = 4 + padded.length + 16
  const word = version === 1 ? [0, 0, 0, 1] : [0x6b, 0x33, 0x43, 0xcf]
  const header = Buffer.from([version === 1 ? 0xc3 : 0xd3, ...word, id.length, ...id, 0, 0, 0x40 | (length >> 8), length & 255, 0, 0, 0, number])
  return protect(padded, header, 4, id, version)
}
const crypto = (offset: number, bytes: Uint8Array): Buffer => Buffer.concat([Buffer.from([6, 0x40 | (offset >> 8), offset & 255, 0x40 | (bytes.length >> 8), bytes.length & 255]), bytes])
const hello = rfcHello.subarray(4)

const context: DatagramContext = { server: { address: '203.0.113.2', port: 443 }, decoders: { dns: () => null, openInitial } }
function findings(...datagrams: readonly (readonly ['up' | 'down', Uint8Array])[]) {
  const dissector = quicKind.make(context)
  for (const [direction, bytes] of datagrams) dissector.datagram(direction, bytes, 0n)
  return dissector.findings()
}

describe('QUIC', () => {
  test('RFC 9001, A.2: protected as there, opened again', () => {
    const packet = protect(Buffer.concat([rfcHello, Buffer.alloc(1162 - rfcHello.length)]), rfcHeader, 4, destinationId)
    expect(packet.subarray(0, rfcStart.length / 2).toString('hex')).toBe(rfcStart)
    expect(packet).toHaveLength(1200)
    expect(quicKind.bid('up', packet, context)).toBe('mine')
    const header = readQuicHeader(packet)!
    expect(header).toMatchObject({ version: 1, kind: 'initial', numberOffset: 18 })
    expect(Buffer.from(header.destinationId).toString('hex')).toBe('8394c8f03e515708')
    expect(Buffer.from(openInitial({ ...header, packet })!.subarray(0, rfcHello.length))).toEqual(rfcHello)
    expect(findings(['up', packet])).toMatchObject({ name: 'example.com', info: 'QUIC 1 example.com alpn', quic: { version: 'QUIC 1', sni: 'example.com', alpnOffered: ['alpn'], destinationId: '8394c8f03e515708' } })
  })

  test('version 2 has its own keys and types', () => {
    const packet = initial(crypto(0, hello), { version: 2 })
    expect(readQuicHeader(packet)).toMatchObject({ version: quicVersion2, kind: 'initial' })
    expect(findings(['up', packet])?.info).toBe('QUIC 2 example.com alpn')
  })

  test('a hello in shuffled pieces over two packets, with acknowledgements and pings between', () => {
    const first = Buffer.concat([Buffer.from([1]), crypto(200, hello.subarray(200)), Buffer.from([2, 0, 0, 0, 0]), crypto(10, hello.subarray(10, 60))])
    const second = Buffer.concat([crypto(60, hello.subarray(60, 205)), crypto(0, hello.subarray(0, 12))])
    const before = findings(['up', initial(first)])
    expect(before).toMatchObject({ info: 'QUIC 1', quic: { alpnOffered: [] } })
    expect(findings(['up', initial(first)], ['down', Buffer.from('c0000000010000')], ['up', initial(second, { number: 1 })])?.quic?.sni).toBe('example.com')
    expect(findings(['up', initial(second)], ['up', initial(first, { number: 1 })])?.quic?.sni).toBe('example.com')
  })

  test('after a Retry the keys follow the id the server gave', () => {
    const id = Buffer.from('f067a5502a4262b5', 'hex')
    const retry = Buffer.concat([Buffer.from('ff000000010008f067a5502a4262b5', 'hex'), Buffer.from('token'), Buffer.alloc(16)])
    expect(readQuicHeader(retry)?.kind).toBe('retry')
    const unread = Buffer.concat([Buffer.from([1]), crypto(100, hello.subarray(100, 110))])
    expect(findings(['up', initial(unread)], ['down', retry], ['up', initial(crypto(0, hello), { id })])?.quic).toMatchObject({ sni: 'example.com', retried: true, destinationId: '8394c8f03e515708' })
  })

  test('what the server speaks instead', () => {
    const negotiation = Buffer.from('8000000000000888888888888888886b3343cf00000001', 'hex')
    expect(findings(['up', initial(Buffer.from([1]))], ['down', negotiation])?.quic?.versionsOffered).toEqual(['QUIC 2', 'QUIC 1'])
  })

  test('what is no QUIC is not taken for it', () => {
    for (const text of ['', '00', 'c0', 'c000000001', 'c00000000115', '16030100a1', 'c0ff00001d' + '00'.repeat(30)]) expect(quicKind.bid('up', Buffer.from(text, 'hex'), { ...context, server: { address: '203.0.113.2', port: 5000 } })).toBe('no')
    expect(quicKind.bid('down', initial(crypto(0, hello)), context)).toBe('no')
  })

  test('cut anywhere, then junk, or with bytes changed: never an exception, never more held than a hello', () => {
    const whole = initial(crypto(0, hello))
    for (let length = 0; length < whole.length; length += length < 64 ? 1 : 37) {
      const dissector = quicKind.make(context)
      dissector.datagram('up', whole.subarray(0, length), 0n)
      dissector.datagram('up', Buffer.concat([whole.subarray(0, length), Buffer.alloc(64, 0xff)]), 0n)
      expect(dissector.findings()?.quic?.sni).toBeUndefined()
    }
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 6 }), fc.uint8Array({ maxLength: 300 }), (changes, junk) => {
        const packet = Buffer.concat([whole, junk])
        for (const [at, value] of changes) packet[at] = value
        const dissector = quicKind.make(context)
        for (const direction of ['up', 'down', 'up'] as const) dissector.datagram(direction, packet, 0n)
        expect(dissector.held()).toBeLessThanOrEqual(128 * 16_384)
        dissector.findings()
      }),
      { numRuns: 300 },
    )
  })

  test('frames of any bytes under right keys', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.uint8Array({ maxLength: 200 }), fc.tuple(fc.nat(16_000), fc.uint8Array({ maxLength: 100 })).map(([offset, bytes]) => crypto(offset, bytes))), { maxLength: 8 }), (parts) => {
        const frames = Buffer.concat(parts)
        const dissector = quicKind.make(context)
        for (let number = 0; number < 20; number++) dissector.datagram('up', initial(frames, { number }), 0n)
        expect(dissector.findings()?.info).toContain('QUIC 1')
        dissector.release()
        expect(dissector.held()).toBe(0)
      }),
      { numRuns: 60 },
    )
  })
})
