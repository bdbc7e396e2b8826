import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { describe, expect, test } from 'vitest'

import type { LabProcess } from '#test/lab/labProcess.ts'
import { labAddresses } from '#test/lab/makeLab.ts'
import { openGate, snapshot } from '#test/net/helper/harness.ts'

import { folder, helper, lab, programs } from './stage.ts'
import { ask, flowsOf, shape, sorted, untilListening } from './support.ts'

// Real proxies in TPROXY mode on the router, without a rule of their own: HAProxy (`bind … transparent`) and Squid (`http_port … tproxy`). The gate brings flows to
// them, and their connections in their clients' names to the servers.

const backends = ['nft', 'iptables', 'iptables-legacy'] as const

/** `spoofs`: it bears its clients' addresses towards servers, else its own. */
async function startHaproxy(spoofs: boolean): Promise<LabProcess> {
  const config = join(folder, 'haproxy.cfg')
  writeFileSync(config, `global
  log stdout format raw local0
defaults
  mode tcp
  log global
  log-format "via %ci %cp %[dst] %[dst_port]"
  timeout connect 5s
  timeout client 10s
  timeout server 10s
frontend f
  bind 127.0.0.1:8889 transparent
  bind [::1]:8889 transparent
  default_backend b
backend b
  server orig 0.0.0.0${spoofs ? ' source 0.0.0.0 usesrc clientip' : ''}
`)
  const haproxy = lab.spawn('router', ['haproxy', '-db', '-f', config])
  await untilListening(lab, '127.0.0.1:8889')
  return haproxy
}

async function startSquid(): Promise<void> {
  const config = join(folder, 'squid.conf')
  writeFileSync(config, `http_port 3129 tproxy
http_port 127.0.0.1:3130
http_access allow all
cache deny all
access_log stdio:${join(folder, 'access.log')} squid
cache_log ${join(folder, 'cache.log')}
cache_store_log none
pid_filename none
coredump_dir none
pinger_enable off
netdb_filename none
max_filedescriptors 1024
client_dst_passthru on
shutdown_lifetime 0 seconds
`)
  // Its shared memory has names of the whole machine, which another Squid uses as well: a /dev/shm of its own.
  const squid = lab.spawn('router', ['unshare', '--mount', '--propagation', 'private', '--', 'sh', '-c', 'mount -t tmpfs none /dev/shm && exec squid -N -f "$0"', config])
  await Promise.race([untilListening(lab, '127.0.0.1:3130'), squid.ended.then(() => Promise.reject(new Error(`squid ended: ${squid.errors()}`)))])
}

/** What the log of it has once there are that many lines. */
async function squidHeard(lines: number): Promise<string> {
  const read = (): string => readFileSync(join(folder, 'access.log'), 'utf8')
  await expect.poll(() => read().split('\n').length).toBeGreaterThan(lines)
  return read()
}

describe.each(backends)('HAProxy in TPROXY mode, by %s', (backend) => {
  test.each([true, false])('forwarded and local, both families; in its clients’ names: %s; it knows client and server, and nothing goes round', async (spoofs) => {
    await lab.peer('server', 'serve', 'origin', '8080').event(({ event }) => event === 'listening')
    const before = await snapshot(lab)
    const haproxy = await startHaproxy(spoofs)
    const { folder: session } = await openGate(helper, programs, backend, { tcp: '', send: ['8080=tproxy:8889'] })
    for (const from of ['client', 'router'] as const) {
      for (const family of ['ipv4', 'ipv6'] as const) {
        const addresses = labAddresses[family]
        const client = from === 'client' ? addresses.client : addresses.routerToServer
        const answer = await ask(lab, from, addresses.server, 8080)
        expect(answer, `${from} ${family}`).toMatchObject({ ok: true, server: 'origin', seenAddress: spoofs ? client : addresses.routerToServer, echo: 'hello' })
        await haproxy.line((line) => line.startsWith(`via ${client} `) && line.endsWith(` ${addresses.server} 8080`))
      }
    }
    await helper.request('close', {})
    const via = 'tproxy:8889'
    expect(sorted((await flowsOf(session)).map(shape))).toEqual(sorted([
      ...[1, 2].map(() => ({ scope: 'forwarded', state: 'finished', via })),
      ...[1, 2].map(() => ({ scope: 'local', state: 'finished', via, by: 'node' })),
      // What it sends in a device's name was recorded on its way to it.
      ...(spoofs ? [1, 2] : [1, 2, 3, 4]).map(() => ({ scope: 'local', state: 'finished', by: 'haproxy' })),
    ]))
    expect(await snapshot(lab)).toBe(before)
  })

  test('one that is not there: the client is told by a reset, the record says which', async () => {
    const { folder: session } = await openGate(helper, programs, backend, { tcp: '', send: ['8080=tproxy:8889'] })
    for (const from of ['client', 'router'] as const) {
      for (const family of ['ipv4', 'ipv6'] as const) expect(await ask(lab, from, labAddresses[family].server, 8080)).toMatchObject({ ok: false, error: 'ECONNRESET' })
    }
    await helper.request('close', {})
    expect((await flowsOf(session)).map(({ row, via }) => [row.state, row.closedBy, via])).toEqual([1, 2, 3, 4].map(() => ['failed', 'gate', 'tproxy:8889']))
  })
})

test.each(backends)('Squid in TPROXY mode, by %s: its log has client and address', async (backend) => {
  const server = lab.spawn('server', [process.execPath, '-e', `require('http').createServer((request, response) => response.end(request.socket.remoteAddress)).listen(8080, '::', () => console.log('ready'))`])
  await server.line((line) => line === 'ready')
  await startSquid()
  const { folder: session } = await openGate(helper, programs, backend, { tcp: '', send: ['8080=tproxy:3129'] })
  for (const from of ['client', 'router'] as const) {
    for (const family of ['ipv4', 'ipv6'] as const) {
      const address = labAddresses[family]
      const host = family === 'ipv4' ? address.server : `[${address.server}]`
      const { stdout } = await lab.exec(from, ['curl', '-sS', '--max-time', '10', '--noproxy', '*', `http://${host}:8080/${from}`])
      expect(stdout.replace('::ffff:', ''), `${from} ${family}`).toBe(from === 'client' ? address.client : address.routerToServer)
    }
  }
  const heard = await squidHeard(4)
  for (const [from, client] of [['client', 'client'], ['router', 'routerToServer']] as const) {
    expect(heard).toMatch(new RegExp(` ${labAddresses.ipv4[client]} TCP_MISS/200 .* http://203.0.113.2:8080/${from} `))
    expect(heard).toMatch(new RegExp(` ${labAddresses.ipv6[client]} TCP_MISS/200 .* http://\\[2001:db8:2::2\\]:8080/${from} `))
  }
  await helper.request('close', {})
  const flows = await flowsOf(session)
  expect(flows.filter(({ via }) => via === 'tproxy:3129').map(({ row }) => row.scope).sort()).toEqual(['forwarded', 'forwarded', 'local', 'local'])
  expect(flows.filter(({ via }) => via === undefined).map(({ row }) => row.process?.name)).toEqual(['squid', 'squid'])
})

describe.each(['nft', 'iptables'] as const)('by %s', (backend) => {
  test.each([
    ['their own ports kept', { keepPort: true }, ''],
    ['with the strictest reverse-path checks', { hold: false }, 'for each in /proc/sys/net/ipv4/conf/*; do echo 1 > $each/rp_filter; echo 1 > $each/src_valid_mark; done'],
  ] as const)('devices alone, %s', async (_, wish, first) => {
    if (first !== '') await lab.exec('router', ['sh', '-c', first])
    await lab.peer('server', 'serve', 'origin', '8080').event(({ event }) => event === 'listening')
    await startHaproxy(true)
    await openGate(helper, programs, backend, { tcp: '', send: ['8080=tproxy:8889'], scope: ['forwarded'], ...wish })
    for (const family of ['ipv4', 'ipv6'] as const) {
      expect(await ask(lab, 'client', labAddresses[family].server, 8080)).toMatchObject({ ok: true, server: 'origin', seenAddress: labAddresses[family].client, echo: 'hello' })
    }
  })

  test('killed amid a flow, nothing is left, and what the proxy had to say does not come out of nowhere', async () => {
    await lab.peer('server', 'serve', 'origin', '8080').event(({ event }) => event === 'listening')
    const before = await snapshot(lab)
    await startHaproxy(true)
    await openGate(helper, programs, backend, { tcp: '', send: ['8080=tproxy:8889'] })
    const talk = lab.peer('client', 'talk', labAddresses.ipv4.server, '8080')
    await talk.event(({ event, line }) => event === 'line' && String(line).startsWith('origin '))
    helper.kill()
    await talk.event(({ event }) => event === 'close')
    await expect.poll(() => snapshot(lab), { timeout: 20_000, interval: 100 }).toBe(before)
    // New flows go direct.
    expect(await ask(lab, 'client', labAddresses.ipv4.server, 8080)).toMatchObject({ ok: true, server: 'origin', seenAddress: labAddresses.ipv4.client })
  })
})
