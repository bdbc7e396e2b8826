// A web server for the tests on the real app, run inside the laboratory: node origin.mjs PORT CONTROL_PORT. Prints "ready".
//   GET /hello            text                    GET /json      a JSON document, gzip when asked for
//   POST /echo            the body again          GET /missing   404
//   GET /download?name=N  sends 256 KiB, then nothing until GET /release?name=N on the control port, then 256 KiB more and the end
import { createServer } from 'node:http'
import { gzipSync } from 'node:zlib'

const [port, control] = process.argv.slice(2).map(Number)
const part = Buffer.alloc(256 * 1024, 'water ')
const waiting = new Map()
// Released before its download came here: what the relay has seen of a request this program may not have read yet.
const early = new Set()

const site = createServer((request, response) => {
  const url = new URL(request.url ?? '/', 'http://origin.example')
  if (url.pathname === '/hello') response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' }).end(`hello ${request.socket.remoteAddress}\n`)
  else if (url.pathname === '/json') {
    const document = JSON.stringify({ greeting: 'hello', numbers: [1, 2, 3], nested: { level: 'low', open: true }, text: 'sluice '.repeat(50) }, null, 2)
    const zipped = /\bgzip\b/.test(request.headers['accept-encoding'] ?? '')
    response.writeHead(200, { 'content-type': 'application/json', ...(zipped ? { 'content-encoding': 'gzip' } : {}) }).end(zipped ? gzipSync(document) : document)
  } else if (url.pathname === '/echo') {
    response.writeHead(201, { 'content-type': request.headers['content-type'] ?? 'application/octet-stream' })
    request.pipe(response)
  } else if (url.pathname === '/download') {
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': 2 * part.length })
    response.write(part)
    const name = url.searchParams.get('name')
    if (early.delete(name)) response.end(part)
    else waiting.set(name, () => response.end(part))
  } else response.writeHead(404, { 'content-type': 'text/html' }).end('<h1>not here</h1>\n')
})
const release = createServer((request, response) => {
  const name = new URL(request.url ?? '/', 'http://origin.example').searchParams.get('name')
  const go = waiting.get(name)
  waiting.delete(name)
  if (go) go()
  else early.add(name)
  response.end('released\n')
})
site.listen(port, '::', () => release.listen(control, '::', () => process.stdout.write('ready\n')))
