// One process a place that makes connections on demand: lines `ID ask|ask-udp|hold ADDRESS PORT TIMEOUT` on standard input, one JSON object a line back.
// ask: one exchange with peer.mjs serve, to its end; ask-udp: one datagram and its answer. hold: a connection that stays open until this process ends.
import dgram from 'node:dgram'
import net from 'node:net'
import readline from 'node:readline'

const tell = (id, event) => process.stdout.write(`${JSON.stringify({ id, ...event })}\n`)

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const [id, word, host, port, timeout = '2000'] = line.split(' ')
  if (word === 'ask-udp') return askUdp(id, host, Number(port), Number(timeout))
  const socket = net.connect({ host, port: Number(port), allowHalfOpen: true })
  let text = ''
  let local = ''
  let done = false
  const finish = (event) => {
    if (done) return
    done = true
    clearTimeout(timer)
    if (word === 'ask') socket.destroy()
    tell(id, event)
  }
  const timer = setTimeout(() => {
    finish({ ok: false, error: text === '' ? 'TIMEOUT' : 'STALLED' })
    socket.destroy()
  }, Number(timeout))
  // Where the server sees the router instead of a client, the router's port may by chance be the client's.
  const relayed = () => text.split('\n')[0].split(' ').slice(1).join(' ') !== local
  socket.on('connect', () => (local = `${socket.localAddress} ${String(socket.localPort)}`))
  socket.on('data', (data) => {
    const first = !text.includes('\n')
    text += data.toString('latin1')
    if (!first || !text.includes('\n')) return
    if (word === 'hold') finish({ ok: true, relayed: relayed() })
    else socket.end('hello\n')
  })
  socket.on('end', () => (text.endsWith('hello\nbye\n') ? finish({ ok: true, relayed: relayed() }) : finish({ ok: false, error: 'TRUNCATED' })))
  socket.on('error', (error) => finish({ ok: false, error: error.code }))
})

function askUdp(id, host, port, timeout) {
  const socket = dgram.createSocket(host.includes(':') ? 'udp6' : 'udp4')
  const finish = (event) => {
    clearTimeout(timer)
    socket.removeAllListeners().on('error', () => undefined).close()
    tell(id, event)
  }
  const timer = setTimeout(() => finish({ ok: false, error: 'TIMEOUT' }), timeout)
  socket.once('message', (data) => finish({ ok: true, relayed: Number(data.toString('latin1').split('\n')[0].split(' ')[2]) !== socket.address().port }))
  socket.once('error', (error) => finish({ ok: false, error: error.code }))
  socket.connect(port, host, () => socket.send('hello'))
}
