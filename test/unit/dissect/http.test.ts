import { describe, expect, it } from 'vitest'

import { dissectFlow } from '#test/support/dissectFlow.ts'
import type { Dissected, Happening } from '#test/support/dissectFlow.ts'

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8')
const get = (path: string, more = ''): string => `GET ${path} HTTP/1.1\r\nHost: example.test\r\n${more}\r\n`
/** One line an exchange: what a person would say of it. */
function told(flow: Dissected): string[] {
  return flow.exchanges.map(({ index, request, response, interim, upgraded, error }) =>
    [
      `${request.method} ${request.url} [${text(flow.body(index, 'request'))}]`,
      response === undefined ? '-' : `${response.status} ${response.statusText} [${text(flow.body(index, 'response'))}]`,
      ...(interim.length === 0 ? [] : [`after ${interim.join(' ')}`]),
      ...(request.body.truncated || response?.body.truncated === true ? ['truncated'] : []),
      ...(upgraded === undefined ? [] : [`now ${upgraded}`]),
      ...(error === undefined ? [] : [`! ${error}`]),
    ].join(' | '),
  )
}

const cases: readonly { readonly name: string; readonly flow: readonly Happening[]; readonly exchanges: readonly string[]; readonly info?: string }[] = [
  {
    name: 'a request and its answer',
    flow: [['up', get('/a?b=c')], ['down', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi']],
    exchanges: ['GET http://example.test/a?b=c [] | 200 OK [hi]'],
    info: 'GET /a?b=c → 200 OK',
  },
  {
    name: 'several on one connection, pipelined',
    flow: [['up', get('/1') + get('/2') + get('/3')], ['down', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n'], ['down', 'HTTP/1.1 204 No Content\r\n\r\n']],
    exchanges: ['GET http://example.test/1 [] | 200 OK [1]', 'GET http://example.test/2 [] | 404 Not Found []', 'GET http://example.test/3 [] | 204 No Content []'],
    info: 'GET /3 → 204 No Content (3 requests)',
  },
  {
    name: 'a body of chunks with an extension and trailers, both ways',
    flow: [
      ['up', 'PUT /c HTTP/1.1\r\nHost: example.test\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n'],
      ['down', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n'],
    ],
    exchanges: ['PUT http://example.test/c [abcde] | 200 OK [0123456789]'],
  },
  {
    name: 'an answer that ends with the connection',
    flow: [['up', 'GET /old HTTP/1.0\r\n\r\n'], ['down', 'HTTP/1.0 200 OK\r\n\r\nall of'], ['down', ' it'], ['down', null]],
    exchanges: ['GET http://203.0.113.2/old [] | 200 OK [all of it]'],
  },
  {
    name: 'the same, cut',
    flow: [['up', 'GET /old HTTP/1.0\r\n\r\n'], ['down', 'HTTP/1.0 200 OK\r\n\r\nsome']],
    exchanges: ['GET http://203.0.113.2/old [] | 200 OK [some] | truncated | ! cut short'],
  },
  {
    name: 'an answer without a body whatever its length says',
    flow: [
      ['up', 'HEAD /h HTTP/1.1\r\nHost: example.test\r\n\r\n' + get('/n')],
      ['down', 'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n'],
    ],
    exchanges: ['HEAD http://example.test/h [] | 200 OK []', 'GET http://example.test/n [] | 304 Not Modified []'],
  },
  {
    name: '100 Continue before the answer',
    flow: [
      ['up', 'POST /p HTTP/1.1\r\nHost: example.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n'], ['down', 'HTTP/1.1 100 Continue\r\n\r\n'],
      ['up', 'body'], ['down', 'HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n'],
    ],
    exchanges: ['POST http://example.test/p [body] | 201 Created [] | after 100'],
  },
  {
    name: 'an answer before the request has ended',
    flow: [
      ['up', 'POST /big HTTP/1.1\r\nHost: example.test\r\nContent-Length: 8\r\n\r\n1234'], ['down', 'HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno'], ['up', '5678'],
    ],
    exchanges: ['POST http://example.test/big [12345678] | 413 Content Too Large [no]'],
  },
  {
    name: 'an upgrade: what follows is another protocol',
    flow: [
      ['up', get('/ws', 'Upgrade: websocket\r\nConnection: Upgrade\r\n')], ['down', 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\u0081\u0005GET /'],
      ['up', 'GET / HTTP/1.1\r\n\r\n'],
    ],
    exchanges: ['GET http://example.test/ws [] | 101 Switching Protocols [] | now websocket'],
    info: 'GET /ws → 101 Switching Protocols, now websocket',
  },
  {
    name: 'a tunnel that is made',
    flow: [['up', 'CONNECT example.test:443 HTTP/1.1\r\nHost: example.test:443\r\n\r\n'], ['down', 'HTTP/1.1 200 Connection established\r\n\r\n'], ['up', '\u0016\u0003'], ['down', 'x']],
    exchanges: ['CONNECT http://example.test:443 [] | 200 Connection established [] | now CONNECT'],
  },
  {
    name: 'a tunnel that is refused, and the next request',
    flow: [
      ['up', 'CONNECT example.test:443 HTTP/1.1\r\nHost: example.test:443\r\n\r\n'], ['up', get('/after')],
      ['down', 'HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny'],
    ],
    exchanges: ['CONNECT http://example.test:443 [] | 407 Proxy Authentication Required []', 'GET http://example.test/after [] | 200 OK [y]'],
  },
  {
    name: 'bare line feeds, folded lines, an absolute target',
    flow: [['up', 'GET http://other.test/x HTTP/1.1\nHost: example.test\nX-Long: a\n  b\n\n'], ['down', 'HTTP/1.1 200 \nContent-Length: 0\n\n']],
    exchanges: ['GET http://other.test/x [] | 200  []'],
  },
  {
    name: 'both framings at once: the chunks count, and it is said',
    flow: [['up', get('/s')], ['down', 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n']],
    exchanges: ['GET http://example.test/s [] | 200 OK [z] | ! it had both Transfer-Encoding and Content-Length; the former was followed'],
  },
  { name: 'no answer', flow: [['up', get('/lost')], ['up', null]], exchanges: ['GET http://example.test/lost [] | - | ! no answer'], info: 'GET /lost → no answer' },
  {
    name: 'a part of the body that was not recorded',
    flow: [['up', get('/g')], ['down', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab'], ['down', 6], ['down', 'yz']],
    exchanges: ['GET http://example.test/g [] | 200 OK [ab\0\0\0\0\0\0yz] | truncated'],
  },
  { name: 'empty lines before a request', flow: [['up', `\r\n\r\n${get('/e')}`], ['down', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n']], exchanges: ['GET http://example.test/e [] | 200 OK []'] },
]

describe('HTTP/1', () => {
  it.each(cases)('$name', ({ flow, exchanges, info }) => {
    const found = dissectFlow(flow)
    expect(found.protocol).toBe('http')
    expect(found.error).toBeUndefined()
    expect(told(found)).toEqual(exchanges)
    if (info !== undefined) expect(found.info).toBe(info)
    // The same, a byte at a time.
    const bytes = flow.flatMap(([direction, what]): Happening[] => (what === null || typeof what === 'number' ? [[direction, what]] : [...Buffer.from(what)].map((byte) => [direction, Uint8Array.of(byte)])))
    expect(told(dissectFlow(bytes))).toEqual(exchanges)
  })

  it('keeps header names, order and repetition as they were', () => {
    const found = dissectFlow([['up', get('/', 'X-a: 1\r\nx-A:  2 \r\nCookie: ü\r\n')], ['down', 'HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n']])
    expect(found.exchanges[0]!.request.headers).toEqual([{ name: 'Host', value: 'example.test' }, { name: 'X-a', value: '1' }, { name: 'x-A', value: '2' }, { name: 'Cookie', value: 'ü' }])
    expect(found.exchanges[0]!.response!.headers.map((header) => header.value)).toEqual(['a=1', 'b=2', '0'])
  })

  const given: readonly { readonly name: string; readonly flow: readonly Happening[]; readonly error: RegExp }[] = [
    { name: 'lengths that contradict each other', flow: [['up', get('/')], ['down', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n']], error: /contradicts itself/ },
    { name: 'a length that is none', flow: [['up', get('/', 'Content-Length: -1\r\n')]], error: /contradicts itself/ },
    { name: 'a chunk length that is none', flow: [['up', get('/')], ['down', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n']], error: /chunk length/ },
    { name: 'a chunk line without end', flow: [['up', get('/')], ['down', `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;${'x'.repeat(70_000)}`]], error: /chunk line/ },
    { name: 'a head without end', flow: [['up', `GET / HTTP/1.1\r\nX: ${'y'.repeat(300_000)}`]], error: /head longer than 256 KiB/ },
    { name: 'too many headers', flow: [['up', get('/', 'a: b\r\n'.repeat(1001))]], error: /more than 1000 headers/ },
    { name: 'an answer nobody asked for', flow: [['up', get('/')], ['down', 'HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n']], error: /without a request/ },
    { name: 'requests without an answer beyond a thousand', flow: [['up', get('/').repeat(1001)]], error: /without an answer/ },
    { name: 'a header line that is none', flow: [['up', 'GET / HTTP/1.1\r\nno colon\r\n\r\n']], error: /header line/ },
    { name: 'an answer in another language', flow: [['up', get('/')], ['down', 'SSH-2.0-x\r\n\r\n']], error: /status line/ },
  ]
  it.each(given)('gives up on $name, and keeps what it had', ({ flow, error }) => {
    const found = dissectFlow(flow)
    expect(found.undecodable).toBe(true)
    expect(found.error).toMatch(error)
    expect(found.held).toBeLessThan(1 << 20)
    expect(dissectFlow([...flow, ['up', get('/more')], ['down', 'x']]).exchanges.length).toBe(found.exchanges.length)
  })

  it('lets the largest of many unfinished flows go when together they hold too much', () => {
    const found = dissectFlow([['up', `GET / HTTP/1.1\r\nX: ${'y'.repeat(100_000)}`]], 65_536)
    expect(found).toMatchObject({ undecodable: true, protocol: 'raw' })
    expect(found.held).toBe(0)
  })

  it.each([
    ['a client that says nothing', [['down', '220 mail.example.test ESMTP\r\n']], 'raw'],
    ['a text protocol with a GET of its own', [['up', 'GET key\r\n'], ['down', '$1\r\n']], 'raw'],
    ['nothing', [], 'empty'],
    ['a beginning that was not recorded', [['up', 10], ['up', get('/')]], 'raw'],
  ] satisfies [string, Happening[], string][])('does not take for HTTP: %s', (_name, flow, protocol) => {
    expect(dissectFlow(flow)).toMatchObject({ protocol, undecodable: false, exchanges: [] })
  })
})
