import dnsPacket from 'dns-packet'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import type { DatagramContext } from '#core/dissect/datagram.ts'
import { DatagramDissection } from '#core/dissect/datagramDissection.ts'
import { HeadBudget } from '#core/dissect/headBudget.ts'
import { decodeDns } from '#session/decodeDns.ts'

const contextAt = (port: number): DatagramContext => ({ server: { address: '203.0.113.2', port }, decoders: { dns: decodeDns, openInitial: () => null } })
const dissectionAt = (port: number): DatagramDissection => new DatagramDissection(contextAt(port), new HeadBudget())
type Kind = 'A' | 'AAAA' | 'MX' | 'TXT'
const query = (name: string, type: Kind = 'A', id = 7): Uint8Array => dnsPacket.encode({ type: 'query', id, flags: dnsPacket.RECURSION_DESIRED, questions: [{ type, name }] })
function answer(name: string, answers: dnsPacket.Answer[], { id = 7, type = 'A', rcode = 0 }: { id?: number; type?: Kind; rcode?: number } = {}): Uint8Array {
  return dnsPacket.encode({ type: 'response', id, flags: dnsPacket.RECURSION_DESIRED | dnsPacket.RECURSION_AVAILABLE | rcode, questions: [{ type, name }], answers })
}

describe('DNS', () => {
  test('a question and its answer: name, data, time between', () => {
    const dissection = dissectionAt(53)
    dissection.datagram('up', query('www.example.test'), 1_000_000_000n)
    expect(dissection.info()).toBe('A www.example.test')
    dissection.datagram('down', answer('www.example.test', [
      { type: 'CNAME', name: 'www.example.test', ttl: 60, data: 'web.example.test' },
      { type: 'A', name: 'web.example.test', ttl: 30, data: '203.0.113.7' },
    ]), 1_002_500_000n)
    expect(dissection.protocol).toBe('dns')
    expect(dissection.info()).toBe('A www.example.test → 203.0.113.7, 2.5 ms')
    expect(dissection.findings()).toMatchObject({ dns: { name: 'www.example.test', type: 'A', rcode: 'NOERROR', transactions: 1 } })
    expect(dissection.transactions()).toEqual([{
      id: 7, name: 'www.example.test', type: 'A', askedAt: '1000000000', answeredAt: '1002500000', rcode: 'NOERROR', flags: ['rd', 'ra'], answerCount: 2,
      answers: [{ name: 'www.example.test', type: 'CNAME', ttl: 60, data: 'web.example.test' }, { name: 'web.example.test', type: 'A', ttl: 30, data: '203.0.113.7' }],
    }])
  })

  test('two questions over one socket are told apart, a repeated one is one, an answer nobody asked for stands alone', () => {
    const dissection = dissectionAt(53)
    dissection.datagram('up', query('a.test', 'A', 1), 0n)
    dissection.datagram('up', query('a.test', 'AAAA', 2), 1n)
    dissection.datagram('up', query('a.test', 'A', 1), 5_000_000_000n)
    dissection.datagram('down', answer('a.test', [], { id: 2, type: 'AAAA' }), 5_000_000_001n)
    dissection.datagram('down', answer('A.test', [{ type: 'A', name: 'a.test', data: '192.0.2.1' }], { id: 1 }), 6_000_000_000n)
    dissection.datagram('down', answer('b.test', [], { id: 9, rcode: 3 }), 7_000_000_000n)
    expect(dissection.info()).toBe('A b.test → NXDOMAIN (3 questions)')
    expect(dissection.transactions().map(({ id, askedAt, rcode }) => [id, askedAt, rcode])).toEqual([[1, '0', 'NOERROR'], [2, '1', 'NOERROR'], [9, undefined, 'NXDOMAIN']])
  })

  test('records of other kinds as text', () => {
    const decoded = decodeDns(answer('x.test', [
      { type: 'MX', name: 'x.test', data: { preference: 10, exchange: 'mail.x.test' } },
      { type: 'TXT', name: 'x.test', data: [Buffer.from('v=spf1 \u001b[31m')] },
    ], { type: 'MX' }))
    expect(decoded?.answers.map((record) => record.data)).toEqual(['10 mail.x.test', '"v=spf1 \\u001b[31m"'])
  })

  test('on another port only a plain question is believed', () => {
    const asked = dissectionAt(5300)
    asked.datagram('up', query('www.example.test'), 0n)
    expect(asked.protocol).toBe('dns')
    const answered = dissectionAt(5300)
    answered.datagram('down', answer('www.example.test', []), 0n)
    expect(answered.protocol).toBe('raw')
    const noise = dissectionAt(53)
    noise.datagram('up', Buffer.from('hello \u0007'), 0n)
    expect(noise.info()).toBe('raw: 1 datagram, 7 bytes, client began “hello \\x07”')
  })

  test('what has no end is bounded', () => {
    const dissection = dissectionAt(53)
    for (let id = 0; id < 2000; id++) dissection.datagram('up', query(`n${id}.test`, 'A', id), 0n)
    expect(dissection.transactions()).toHaveLength(200)
    expect(dissection.findings()?.dns?.transactions).toBe(2000)
    expect(decodeDns(new Uint8Array(5000))).toBeNull()
    // Pointers into pointers, and counts that promise more than there is.
    const bomb = Buffer.alloc(4096, 0xc0)
    bomb.writeUInt16BE(0xffff, 6)
    for (let at = 12; at + 1 < bomb.length; at += 2) bomb.writeUInt16BE(0xc000 | Math.max(12, at - 2), at)
    const begun = performance.now()
    expect(decodeDns(bomb)).toBeNull()
    expect(performance.now() - begun).toBeLessThan(2000)
  })

  test('cut anywhere, then junk, or with bytes changed: null or a message, never an exception, every text escaped', () => {
    const samples = [query('www.example.test'), answer('www.example.test', [
      { type: 'A', name: 'www.example.test', data: '203.0.113.7' }, { type: 'MX', name: 'x.test', data: { preference: 1, exchange: 'm.test' } }, { type: 'TXT', name: 'x.test', data: 'hi' },
      { type: 'SRV', name: '_a._udp.test', data: { port: 1, target: 't.test' } }, { type: 'CAA', name: 'x.test', data: { tag: 'issue', value: 'ca.test', issuerCritical: true } },
    ])]
    for (const sample of samples) {
      for (let length = 0; length <= sample.length; length++) {
        decodeDns(sample.subarray(0, length))
        decodeDns(Buffer.concat([sample.subarray(0, length), Buffer.alloc(40, 0xff)]))
      }
      fc.assert(
        fc.property(fc.array(fc.tuple(fc.nat(sample.length - 1), fc.nat(255)), { maxLength: 8 }), (changes) => {
          const bytes = Buffer.from(sample)
          for (const [at, value] of changes) bytes[at] = value
          const message = decodeDns(bytes)
           
          expect(JSON.stringify(message)).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e]/)
          const dissection = dissectionAt(53)
          dissection.datagram('up', bytes, 0n)
          dissection.datagram('down', bytes, 1n)
          dissection.info()
        }),
        { numRuns: 500 },
      )
    }
    fc.assert(fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => void decodeDns(bytes)), { numRuns: 500 })
  })
})
