// A small TCP and UDP peer for tests, run by Node inside a namespace. Plain JavaScript without imports of ours, so that it runs as it lies there.
//
//   peer.mjs serve NAME PORT [--host ADDRESS] [--udp]
//     Says `NAME ADDRESS PORT\n` (who served, and whom it sees) to each new connection, then echoes. A client's FIN is answered with `bye\n` and FIN. A line
//     `RESET` makes it reset the connection, `END` makes it end its own side and go on reading. UDP: answers each datagram with that line and the datagram.
//     Prints {"event":"listening","port":N}, then connected / data (bytes so far, at FIN) / ended / failed for each connection.
//   peer.mjs ask ADDRESS PORT [--udp] [--from ADDRESS[:PORT]] [--send TEXT] [--timeout MS] [--bind PORT] [--broadcast]
//     One exchange: connects, reads the greeting, sends TEXT, reads it back, ends, waits for the end. Prints one JSON line
//     {"ok":true,"server","seenAddress","seenPort","echo","end":"fin","localPort"} or {"ok":false,"error":CODE}, exit status 0 either way.
//   peer.mjs talk ADDRESS PORT --udp [--unconnected] [--bind PORT]
//     A UDP socket led by its standard input: `send TEXT` sends a datagram; each answer is printed as {"event":"answer","server","seenAddress","seenPort","echo","from"}.
//   peer.mjs talk ADDRESS PORT [--from ADDRESS[:PORT]] [--bind PORT]
//     A connection led by its standard input: lines `send TEXT`, `bulk BYTES`, `end`, `reset`, `pause`, `resume`. Prints open / line / bytes / end / close events.
import dgram from 'node:dgram'
import net from 'node:net'
import { parseArgs } from 'node:util'
import readline from 'node:readline'

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { host: { type: 'string' }, udp: { type: 'boolean' }, from: { type: 'string' }, send: { type: 'string', default: 'hello' }, timeout: { type: 'string', default: '15000' }, bind: { type: 'string', default: '0' }, unconnected: { type: 'boolean' }, broadcast: { type: 'boolean' } },
})
const [mode, first, second] = positionals
const tell = (event) => process.stdout.write(`${JSON.stringify(event)}\n`)
const plain = (address) => address.replace(/^::ffff:/, '')

if (mode === 'serve') (values.udp ? serveUdp : serveTcp)(first, Number(second))
else if (mode === 'ask') (values.udp ? askUdp : askTcp)(first, Number(second))
else if (mode === 'talk') (values.udp ? talkUdp : talk)(first, Number(second))
else throw new Error(`peer: unknown mode ${mode}`)

function serveTcp(name, port) {
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    // Reset before it could be looked at: nobody is there to be served.
    if (socket.remoteAddress === undefined) return void socket.destroy()
    const peer = { address: plain(socket.remoteAddress), port: socket.remotePort }
    let bytes = 0
    let ended = false
    tell({ event: 'connected', peer, to: { address: plain(socket.localAddress), port: socket.localPort } })
    socket.write(`${name} ${peer.address} ${peer.port}\n`)
    socket.on('data', (data) => {
      bytes += data.length
      const text = data.length < 64 ? data.toString('latin1') : ''
      if (text === 'RESET\n') return socket.resetAndDestroy()
      if (text === 'END\n') {
        ended = true
        return socket.end()
      }
      if (!ended && !socket.write(data)) {
        socket.pause()
        socket.once('drain', () => socket.resume())
      }
    })
    socket.on('end', () => {
      tell({ event: 'data', peer, bytes })
      if (!ended) socket.end('bye\n')
    })
    socket.on('error', (error) => tell({ event: 'failed', peer, error: error.code }))
    socket.on('close', () => tell({ event: 'ended', peer, bytes }))
  })
  server.on('error', (error) => tell({ event: 'failed', error: error.code }))
  server.listen({ port, host: values.host ?? '::', backlog: 1024 }, () => tell({ event: 'listening', port: server.address().port }))
}

function serveUdp(name, port) {
  const socket = dgram.createSocket((values.host ?? '::').includes(':') ? 'udp6' : 'udp4')
  socket.on('message', (data, from) => socket.send(Buffer.concat([Buffer.from(`${name} ${plain(from.address)} ${from.port}\n`), data]), from.port, from.address))
  socket.bind({ port, address: values.host ?? '::' }, () => tell({ event: 'listening', port: socket.address().port }))
}

function connectOptions(host, port) {
  const from = /^(.*?)(?::(\d+))?$/.exec(values.from?.includes('::') ? '' : (values.from ?? ''))
  const local = values.from === undefined ? {} : values.from.includes('::') ? { localAddress: values.from } : { localAddress: from[1], ...(from[2] ? { localPort: Number(from[2]) } : {}) }
  return { host, port, allowHalfOpen: true, noDelay: true, ...local, ...(values.bind === '0' ? {} : { localPort: Number(values.bind) }) }
}

function askTcp(host, port) {
  const started = { text: '', localPort: 0 }
  const finish = (result) => {
    clearTimeout(timer)
    tell(result)
    process.exit(0)
  }
  const timer = setTimeout(() => finish({ ok: false, error: started.text === '' ? 'TIMEOUT' : 'STALLED' }), Number(values.timeout))
  const socket = net.connect(connectOptions(host, port), () => (started.localPort = socket.localPort))
  let sent = false
  socket.on('data', (data) => {
    started.text += data.toString('latin1')
    if (!sent && started.text.includes('\n')) {
      sent = true
      socket.end(`${values.send}\n`)
    }
  })
  socket.on('end', () => {
    const [greeting = '', echo = '', bye = ''] = started.text.split('\n')
    const [server, seenAddress, seenPort] = greeting.split(' ')
    if (bye !== 'bye') return finish({ ok: false, error: 'TRUNCATED', text: started.text })
    finish({ ok: true, server, seenAddress, seenPort: Number(seenPort), echo, localPort: started.localPort })
  })
  socket.on('error', (error) => finish({ ok: false, error: error.code }))
}

function askUdp(host, port) {
  const socket = dgram.createSocket(host.includes(':') ? 'udp6' : 'udp4')
  const finish = (result) => {
    tell(result)
    process.exit(0)
  }
  setTimeout(() => finish({ ok: false, error: 'TIMEOUT' }), Number(values.timeout))
  socket.on('message', (data, from) => finish({ ok: true, ...answerIn(data, from), localPort: socket.address().port }))
  socket.on('error', (error) => finish({ ok: false, error: error.code }))
  socket.bind(Number(values.bind), () => {
    if (!values.broadcast) return socket.connect(port, host, () => socket.send(values.send))
    socket.setBroadcast(true)
    socket.send(values.send, port, host)
  })
}

function talkUdp(host, port) {
  const socket = dgram.createSocket(host.includes(':') ? 'udp6' : 'udp4')
  const start = () => {
    tell({ event: 'open', localPort: socket.address().port })
    const lines = readline.createInterface({ input: process.stdin })
    lines.on('line', (line) => values.unconnected ? socket.send(line.slice(5), port, host) : socket.send(line.slice(5)))
  }
  socket.on('message', (data, from) => tell({ event: 'answer', ...answerIn(data, from) }))
  socket.on('error', (error) => tell({ event: 'error', error: error.code }))
  socket.bind(Number(values.bind), () => (values.unconnected ? start() : socket.connect(port, host, start)))
}

function answerIn(data, from) {
  const [greeting = '', echo = ''] = data.toString('latin1').split('\n')
  const [server, seenAddress, seenPort] = greeting.split(' ')
  return { server, seenAddress, seenPort: Number(seenPort), echo, from: { address: from.address, port: from.port } }
}

function talk(host, port) {
  const socket = net.connect(connectOptions(host, port), () => tell({ event: 'open', localAddress: socket.localAddress, localPort: socket.localPort }))
  let rest = ''
  let bytes = 0
  let expected = 0
  socket.on('data', (data) => {
    if (expected > 0) {
      bytes += data.length
      if (bytes >= expected) tell({ event: 'bytes', bytes })
      return
    }
    rest += data.toString('latin1')
    const lines = rest.split('\n')
    rest = lines.pop()
    for (const line of lines) tell({ event: 'line', line })
  })
  socket.on('end', () => tell({ event: 'end', bytes }))
  socket.on('error', (error) => tell({ event: 'error', error: error.code }))
  socket.on('close', () => {
    tell({ event: 'close' })
    process.exit(0)
  })
  readline.createInterface({ input: process.stdin }).on('line', (line) => {
    const [word, argument = ''] = [line.split(' ', 1)[0], line.slice(line.indexOf(' ') + 1)]
    if (word === 'send') socket.write(`${argument}\n`)
    else if (word === 'bulk') {
      expected = Number(argument)
      socket.write(Buffer.alloc(expected, 'x'))
    } else if (word === 'end') socket.end()
    else if (word === 'reset') socket.resetAndDestroy()
    else if (word === 'pause') socket.pause()
    else if (word === 'resume') socket.resume()
  })
}
