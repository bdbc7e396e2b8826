// Many small exchanges from one process, so that a whole table of verdicts costs little. Plain JavaScript, run by Node inside a namespace.
//   prober.mjs FIRST_PORT [COUNT]
// Reads lines {"id","host","port","udp"?,"from"?,"timeout"?} (ms), answers each with {"id","ok":true,"server","seenAddress","seenPort","localPort"} or {"id","ok":false,"error","localPort"}.
// Local ports are taken in turn from FIRST_PORT on, below the kernel's ephemeral range: a relay's upstream port is never among them, so "seenPort differs from
// localPort" says for certain that somebody stood between.
import dgram from 'node:dgram'
import net from 'node:net'
import readline from 'node:readline'

const first = Number(process.argv[2])
const count = Number(process.argv[3] ?? 2000)
const usualTimeout = 15_000
let next = 0
const tell = (event) => process.stdout.write(`${JSON.stringify(event)}\n`)

function answerOf(text, localPort) {
  const [server, seenAddress, seenPort] = text.split('\n', 1)[0].split(' ')
  return { ok: true, server, seenAddress, seenPort: Number(seenPort), localPort }
}

function probeTcp({ host, port, from, timeout = usualTimeout }, localPort) {
  return new Promise((resolve) => {
    let text = ''
    const socket = net.connect({ host, port, localPort, ...(from === undefined ? {} : { localAddress: from }) })
    const timer = setTimeout(() => socket.destroy(Object.assign(new Error(), { code: 'TIMEOUT' })), timeout)
    socket.on('data', (data) => {
      text += data.toString('latin1')
      if (text.includes('\n')) socket.end()
    })
    socket.on('error', (error) => resolve({ ok: false, error: error.code }))
    socket.on('close', () => {
      clearTimeout(timer)
      resolve(text.includes('\n') ? answerOf(text, localPort) : { ok: false, error: 'TRUNCATED' })
    })
  })
}

function probeUdp({ host, port, from, timeout = usualTimeout }, localPort) {
  return new Promise((resolve) => {
    const socket = dgram.createSocket(host.includes(':') ? 'udp6' : 'udp4')
    const finish = (answer) => {
      clearTimeout(timer)
      socket.close()
      resolve(answer)
    }
    const timer = setTimeout(() => finish({ ok: false, error: 'TIMEOUT' }), timeout)
    socket.once('message', (data) => finish(answerOf(data.toString('latin1'), localPort)))
    socket.once('error', (error) => finish({ ok: false, error: error.code }))
    socket.bind({ port: localPort, ...(from === undefined ? {} : { address: from }) }, () => socket.connect(port, host, () => socket.send('probe')))
  })
}

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const { id, udp, ...target } = JSON.parse(line)
  const localPort = first + (next++ % count)
  tell({ id, localPort, ...(await (udp ? probeUdp : probeTcp)(target, localPort)) })
})
tell({ event: 'ready' })
