#!/usr/bin/env node
// Stands where Playwright expects Electron and starts the real one in another network namespace (and, if told, as another user). Playwright
// reaches an app by debugging ports on loopback, which is another loopback in there, so each port is met here by one that forwards to it.
import { spawn } from 'node:child_process'
import { createServer } from 'node:net'
import { createInterface } from 'node:readline'

/** @type {{electron: string, netns?: string, log?: string, user?: {uid: number, gid: number}}} */
const order = JSON.parse(process.env['SLUICE_E2E_ORDER'] ?? '{}')
const enter = order.netns === undefined ? [] : ['nsenter', `--net=${order.netns}`, '--']
const become = order.user === undefined ? [] : ['setpriv', `--reuid=${order.user.uid}`, `--regid=${order.user.gid}`, '--clear-groups', '--']
const { SLUICE_E2E_ORDER: _order, NODE_OPTIONS: _options, ...env } = process.env

// What root's helper writes down is this app's alone; what is mounted outside goes on being seen (names of network namespaces).
const withOwnLog = order.log === undefined ? [] : ['unshare', '--mount', '--propagation', 'slave', '--', 'sh', '-ec', 'mount --bind "$0" /var/log; exec "$@"', order.log]

const [program, ...args] = [...withOwnLog, ...enter, ...become, order.electron, ...process.argv.slice(2)]
const app = spawn(program, args, { env, stdio: ['inherit', 'inherit', 'pipe'] })

const held = []
createInterface({ input: app.stderr }).on('line', (line) => {
  // In order, whatever waits for a listener.
  const last = held.at(-1) ?? Promise.resolve()
  held.push(last.then(() => forwardIn(line)).then((text) => process.stderr.write(`${text}\n`)))
})

async function forwardIn(line) {
  const match = order.netns === undefined ? null : /^((?:Debugger|DevTools) listening on ws:\/\/127\.0\.0\.1:)(\d+)(\/.*)$/.exec(line)
  if (match === null) return line
  const server = createServer((socket) => {
    const bridge = spawn(enter[0], [...enter.slice(1), 'socat', 'STDIO', `TCP:127.0.0.1:${match[2]}`], { stdio: ['pipe', 'pipe', 'ignore'] })
    socket.pipe(bridge.stdin)
    bridge.stdout.pipe(socket)
    for (const end of [socket, bridge, bridge.stdin, bridge.stdout]) end.on('error', () => socket.destroy())
    socket.on('close', () => bridge.kill())
    bridge.on('exit', () => socket.end())
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return `${match[1]}${server.address().port}${match[3]}`
}

app.on('error', (error) => {
  process.stderr.write(`${error.message}\n`)
  process.exit(127)
})
app.on('exit', (code, signal) => {
  void Promise.allSettled(held).then(() => process.exit(signal === null ? (code ?? 1) : 128))
})
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => app.kill(signal))
