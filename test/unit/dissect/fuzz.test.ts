import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

import { dissectFlow } from '#test/support/dissectFlow.ts'
import type { Happening } from '#test/support/dissectFlow.ts'
import type { Direction } from '#core/flow/flow.ts'

interface Message {
  readonly bytes: Uint8Array
  readonly body: Uint8Array
}
interface Pair {
  readonly method: string
  readonly path: string
  readonly request: Message
  readonly status: number
  readonly response: Message
}

const body = fc.uint8Array({ maxLength: 300 })
/** A body as Content-Length or as chunks of those sizes. */
function framed(head: string, bytes: Uint8Array, chunks: readonly number[] | null, alwaysLength: boolean): Message {
  if (chunks === null) return { bytes: Buffer.concat([Buffer.from(`${head}${bytes.length > 0 || alwaysLength ? `Content-Length: ${bytes.length}\r\n` : ''}\r\n`), bytes]), body: bytes }
  const parts: Uint8Array[] = [Buffer.from(`${head}Transfer-Encoding: chunked\r\n\r\n`)]
  for (let at = 0, index = 0; at < bytes.length; index++) {
    const part = bytes.subarray(at, at + (chunks[index % chunks.length] ?? 1))
    parts.push(Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from('\r\n'))
    at += part.length
  }
  return { bytes: Buffer.concat([...parts, Buffer.from('0\r\n\r\n')]), body: bytes }
}
const chunks = fc.option(fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 4 }), { nil: null })
const pair: fc.Arbitrary<Pair> = fc
  .record({
    method: fc.constantFrom('GET', 'POST', 'PUT', 'DELETE', 'M-SEARCH'), path: fc.stringMatching(/^\/[a-z0-9/?=&.-]{0,30}$/), up: body, upChunks: chunks,
    status: fc.constantFrom(200, 201, 204, 301, 304, 404, 500), down: body, downChunks: chunks,
  })
  .map(({ method, path, up, upChunks, status, down, downChunks }) => {
    const bare = status === 204 || status === 304
    const head = `HTTP/1.1 ${status} Words\r\nServer: x\r\n`
    return {
      method, path, status, request: framed(`${method} ${path} HTTP/1.1\r\nHost: example.test\r\n`, up, upChunks, false),
      response: bare ? { bytes: Buffer.from(`${head}\r\n`), body: new Uint8Array(0) } : framed(head, down, downChunks, true),
    }
  })

/** Both streams in pieces of the given sizes, requests always before what answers them. */
function cut(pairs: readonly Pair[], sizes: readonly number[]): Happening[] {
  const happenings: Happening[] = []
  let turn = 0
  for (const { request, response } of pairs) {
    for (const [direction, { bytes }] of [['up', request], ['down', response]] as const) {
      for (let at = 0; at < bytes.length; ) {
        const size = sizes[turn++ % sizes.length] ?? 1
        happenings.push([direction, bytes.subarray(at, at + size)])
        at += size
      }
    }
  }
  return happenings
}
const sizes = fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 8 })

describe('any HTTP/1 conversation', () => {
  it('is read as it was meant, wherever it is cut', () => {
    fc.assert(
      fc.property(fc.array(pair, { minLength: 1, maxLength: 5 }), sizes, (pairs, cuts) => {
        const found = dissectFlow(cut(pairs, cuts))
        expect(found.error).toBeUndefined()
        expect(found.exchanges.map(({ request, response }) => [request.method, request.target, response?.status])).toEqual(pairs.map(({ method, path, status }) => [method, path, status]))
        for (const [index, { request, response }] of pairs.entries()) {
          expect(Buffer.from(found.body(index, 'request')).equals(request.body)).toBe(true)
          expect(Buffer.from(found.body(index, 'response')).equals(response.body)).toBe(true)
          expect(found.exchanges[index]!.error).toBeUndefined()
        }
      }),
      { numRuns: 300 },
    )
  })

  it('with a body of more pieces than an exchange bears: the rest comes in batches', () => {
    const bytes = Uint8Array.from({ length: 3000 }, (_, index) => index & 255)
    const many: Pair = { method: 'GET', path: '/', status: 200, request: framed('GET / HTTP/1.1\r\nHost: a\r\n', new Uint8Array(0), null, false), response: framed('HTTP/1.1 200 OK\r\n', bytes, [2], true) }
    const found = dissectFlow(cut([many], [1000]))
    expect(found.exchanges[0]!.response!.body).toMatchObject({ length: 3000, truncated: false })
    expect(found.exchanges[0]!.response!.body.pieces.length).toBe(500)
    expect(Buffer.from(found.body(0, 'response')).equals(bytes)).toBe(true)
  })
})

/** What must hold of every flow, whatever it carried. */
function hold(flow: readonly Happening[]): void {
  const found = dissectFlow(flow)
  expect(['http', 'tls', 'raw', 'empty']).toContain(found.protocol)
  // Nothing in a row can move a cursor or hide itself.
   
  expect(found.info).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]/u)
  expect(found.info.length).toBeLessThan(600)
  expect(found.findings?.name ?? '').toMatch(/^[a-z0-9_.:-]{0,253}$/)
  expect(found.undecodable).toBe(found.error !== undefined)
  expect(found.held).toBeLessThan(1 << 20)
  for (const { index, request, response } of found.exchanges) {
    for (const [part, message] of [['request', request], ['response', response]] as const) {
      if (message === undefined) continue
      const pieces = found.pieces(index, part)
      let end = 0
      let sum = 0
      for (const { offset, length } of pieces) {
        expect(offset).toBeGreaterThanOrEqual(end)
        expect(length).toBeGreaterThan(0)
        end = offset + length
        sum += length
      }
      expect(end).toBeLessThanOrEqual(found.streams[part === 'request' ? 'up' : 'down'].length)
      expect(sum).toBe(message.body.length)
    }
  }
}

const hello = Buffer.from(
  '16030100c6010000c203035b90ba8d5e1c1d5b2e1a0d1e4bdc9f3d5a4c2e7f60718293a4b5c6d7e8f90a0b2000112233445566778899aabbccddeeff00112233445566778899aabbccddeeff000613011302c02f0100007300000010000e00000b6578616d706c652e74657374'.padEnd(2 * 203, '0'),
  'hex',
)
const junk = fc.oneof(fc.uint8Array({ maxLength: 400 }), fc.constantFrom('\r\n', '\r\n\r\n', '0\r\n\r\n', 'HTTP/1.1 200 OK\r\n\r\n', 'GET / HTTP/1.1\r\n\r\n', ':', '\0').map((text) => new Uint8Array(Buffer.from(text))))
const event = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(fc.constantFrom<Direction>('up', 'down'), junk) },
  { weight: 1, arbitrary: fc.tuple(fc.constantFrom<Direction>('up', 'down'), fc.integer({ min: 1, max: 5000 })) },
  { weight: 1, arbitrary: fc.tuple(fc.constantFrom<Direction>('up', 'down'), fc.constant(null)) },
)

describe('nonsense does no harm:', () => {
  it('a good conversation cut anywhere, then junk, gaps and ends', () => {
    fc.assert(
      fc.property(fc.array(pair, { minLength: 1, maxLength: 3 }), sizes, fc.nat(), fc.array(event, { maxLength: 12 }), (pairs, cuts, at, after) => {
        const good = cut(pairs, cuts)
        hold([...good.slice(0, at % (good.length + 1)), ...after])
      }),
      { numRuns: 500 },
    )
  })
  it('a good conversation with bytes changed', () => {
    fc.assert(
      fc.property(fc.array(pair, { minLength: 1, maxLength: 3 }), sizes, fc.array(fc.tuple(fc.nat(), fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 6 }), (pairs, cuts, changes) => {
        const flow = cut(pairs, cuts).map(([direction, what]): Happening => [direction, Uint8Array.from(what as Uint8Array)])
        for (const [which, where, value] of changes) {
          const bytes = flow[which % flow.length]![1] as Uint8Array
          if (bytes.length > 0) bytes[where % bytes.length] = value
        }
        hold(flow)
      }),
      { numRuns: 500 },
    )
  })
  it('a TLS hello cut and changed anywhere, then junk', () => {
    fc.assert(
      fc.property(fc.nat(hello.length), fc.array(fc.tuple(fc.nat(hello.length - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }), fc.array(event, { maxLength: 6 }), (length, changes, after) => {
        const bytes = new Uint8Array(hello)
        for (const [where, value] of changes) bytes[where] = value
        hold([['up', bytes.subarray(0, length)], ...after])
      }),
      { numRuns: 500 },
    )
  })
  it('junk alone', () => {
    fc.assert(fc.property(fc.array(event, { maxLength: 20 }), (flow) => { hold(flow) }), { numRuns: 500 })
  })
})
