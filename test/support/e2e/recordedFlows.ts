import { gzipSync } from 'node:zlib'

import { buildCapture, type CaptureFixture } from '../captureFixture.ts'

const server = { address: '203.0.113.2', port: 80 }

/** A capture with one flow of each kind a person meets, then `more` plain ones. Numbers: see the comments. */
export function recordedFlows(more = 0): Uint8Array {
  const capture = buildCapture()
  // 1: a request of a program of this computer, with a body both ways.
  let id = capture.opened({ server })
  capture.process(id, { name: 'curl', cmdline: ['curl', '-d', '{"article":"lamp"}', 'http://shop.test/orders'] }).connected(id)
  capture.data(id, 'up', 'POST /orders?from=page HTTP/1.1\r\nHost: shop.test\r\nContent-Type: application/json\r\nX-Note: it\'s new\r\nContent-Length: 18\r\n\r\n{"article":"lamp"}')
  const answer = gzipSync(JSON.stringify({ order: 4711, accepted: true, lines: ['one', 'two'] }))
  capture.data(id, 'down', Buffer.concat([Buffer.from(`HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: ${answer.length}\r\n\r\n`), answer]))
  end(capture, id)
  // 2: two requests on one connection of another machine, the second not found.
  id = capture.opened({ scope: 'forwarded', server })
  capture.connected(id)
  for (const [path, status] of [['/hello', '200 OK'], ['/missing', '404 Not Found']] as const) {
    capture.data(id, 'up', `GET ${path} HTTP/1.1\r\nHost: site.test\r\n\r\n`).data(id, 'down', `HTTP/1.1 ${status}\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\ntext`)
  }
  end(capture, id)
  // 3: a server's fault.
  capture.exchange('GET /broken HTTP/1.1\r\nHost: site.test\r\n\r\n', 'HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n', { server })
  // 4: refused.
  id = capture.opened({ server: { address: '203.0.113.9', port: 8080 } })
  capture.process(id, { name: 'git-remote-http', pid: 77 }).closed(id, 'refused')
  // 5: bytes nobody knows, hostile ones, with a hole; reset by the server.
  id = capture.opened({ server: { address: '2001:db8::9', port: 6379 }, client: { address: '2001:db8::1', port: 999 } })
  capture.connected(id).data(id, 'up', 'PING \u001b[31m<img src=x onerror=alert(1)>\u202e\r\n').gap(id, 'down', 5000).data(id, 'down', '+PONG\r\n').closed(id, 'server-reset', 'server')
  // 6: never ended.
  id = capture.opened({ server })
  capture.connected(id).data(id, 'up', 'GET /endless HTTP/1.1\r\nHost: site.test\r\n\r\n')
  for (let number = 0; number < more; number += 1) {
    capture.exchange(`GET /item/${number} HTTP/1.1\r\nHost: many.test\r\n\r\n`, `HTTP/1.1 200 OK\r\nContent-Length: ${number % 1000}\r\n\r\n${'x'.repeat(number % 1000)}`, { client: { address: '198.51.100.7', port: 10_000 + (number % 50_000) } })
  }
  return capture.bytes()
}

function end(capture: CaptureFixture, id: number): void {
  capture.finished(id, 'up').finished(id, 'down').closed(id)
}
