import { execFileSync } from 'node:child_process'
import fc from 'fast-check'
import { expect, test } from 'vitest'

import { curlCommand, quoteWord } from '#core/export/curlCommand.ts'
import type { HttpRequest } from '#core/flow/flow.ts'

const request = (change: Partial<HttpRequest> = {}): HttpRequest => ({
  method: 'GET', target: '/', url: 'http://example.test/', version: 'HTTP/1.1', headers: [], headBytes: 0,
  body: { length: 0, pieces: [], truncated: false }, startedAt: '0', ...change,
})

test('a request becomes what one would have typed', () => {
  expect(curlCommand(request())).toBe('curl http://example.test/')
  expect(
    curlCommand(
      request({
        method: 'POST',
        url: 'http://example.test/orders?id=1&x=2',
        headers: [
          { name: 'Host', value: 'example.test' },
          { name: 'Content-Type', value: 'application/json' },
          { name: 'Content-Length', value: '7' },
          { name: 'X-Empty', value: '' },
        ],
      }),
      { text: '{"a":1}' },
    ),
  ).toBe(`curl 'http://example.test/orders?id=1&x=2' -H 'Content-Type: application/json' -H 'X-Empty;' --data-raw '{"a":1}'`)
  expect(curlCommand(request({ method: 'PUT' }), { file: 'body.bin' })).toBe('curl -X PUT http://example.test/ --data-binary @body.bin')
  expect(curlCommand(request({ method: 'HEAD', url: 'http://[2001:db8::1]/a[1]' }))).toBe(`curl --head --globoff 'http://[2001:db8::1]/a[1]'`)
})

test('bash reads any word as it was, and nothing else runs', () => {
  const words = fc.array(fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom("'; id; '", '$(id)', '`id`', '\u001b[31m', '\\', "\\'", '\n', '\u202e!')), { minLength: 1, maxLength: 20 })
  fc.assert(
    fc.property(words, (wanted) => {
      // NUL cannot be part of an argument at all; lone surrogates have no bytes.
      const usable = wanted.map((word) => word.replaceAll('\0', '').replace(/\p{Cs}/gu, ''))
      const script = `printf '%s\\0' ${usable.map(quoteWord).join(' ')}`
      expect(script).not.toMatch(/[\u0000-\u001f\u007f]/)
      const said = execFileSync('bash', ['--norc', '-c', script], { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8', env: { LC_ALL: 'C.UTF-8' } })
      expect(said).toBe(usable.map((word) => `${word}\0`).join(''))
    }),
    { numRuns: 60 },
  )
})
