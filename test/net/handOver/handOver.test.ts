import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { describe, expect, test } from 'vitest'

import type { LabProcess } from '#test/lab/labProcess.ts'
import { labAddresses } from '#test/lab/makeLab.ts'
import { openGate } from '#test/net/helper/harness.ts'

import { folder, helper, lab, programs, withOrigin } from './stage.ts'
import { ask, flowsOf, shape, sorted, untilListening } from './support.ts'

// Real proxies on the router, as a person runs them: HAProxy (PROXY protocol v2 over TCP and a unix socket) and microsocks (SOCKS5). They reach the server themselves, through
// the very gate that sends to them.

withOrigin()

/** HAProxy that goes where the PROXY header says (server address 0.0.0.0), and logs whom it heard of. */
async function startHaproxy(): Promise<LabProcess> {
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
  bind 127.0.0.1:8888 accept-proxy
  bind ${join(folder, 'x.sock')} accept-proxy mode 666
  default_backend b
backend b
  server orig 0.0.0.0
`)
  const haproxy = lab.spawn('router', ['haproxy', '-db', '-f', config])
  await untilListening(lab, '127.0.0.1:8888')
  return haproxy
}

async function startSocks(address: string, shown: string): Promise<void> {
  lab.spawn('router', ['microsocks', '-i', address, '-p', '1080'])
  await untilListening(lab, `${shown}:1080`)
}

describe('HAProxy by PROXY protocol v2', () => {
  test.each([['tcp', 'nft'], ['unix', 'nft'], ['tcp', 'iptables'], ['tcp', 'iptables-legacy']] as const)('over %s, by %s: forwarded and local, both families; it hears of the client, and its own connections go straight', async (over, backend) => {
    const haproxy = await startHaproxy()
    const to = over === 'tcp' ? '127.0.0.1:8888' : join(folder, 'x.sock')
    const { folder: session } = await openGate(helper, programs, backend, { tcp: '', send: [`8080=proxy2:${to}`] })
    for (const from of ['client', 'router'] as const) {
      for (const family of ['ipv4', 'ipv6'] as const) {
        const addresses = labAddresses[family]
        const answer = await ask(lab, from, addresses.server, 8080)
        // The server sees the proxy, as it would without a gate.
        expect(answer, `${from} ${family}`).toMatchObject({ ok: true, server: 'origin', seenAddress: addresses.routerToServer, echo: 'hello' })
        const heard = from === 'client' ? addresses.client : addresses.routerToServer
        await haproxy.line((line) => line.startsWith(`via ${heard} ${String(answer['localPort'])} ${addresses.server} 8080`))
      }
    }
    await helper.request('close', {})
    const via = `proxy2:${to}`
    expect(sorted((await flowsOf(session)).map(shape))).toEqual(sorted([
      ...[1, 2].map(() => ({ scope: 'forwarded', state: 'finished', via })),
      ...[1, 2].map(() => ({ scope: 'local', state: 'finished', via, by: 'node' })),
      ...[1, 2, 3, 4].map(() => ({ scope: 'local', state: 'finished', by: 'haproxy' })),
    ]))
  })

  test('a proxy that is not there: the client is told by a reset, the record says which', async () => {
    const { folder: session } = await openGate(helper, programs, 'nft', { tcp: '', send: ['8080=proxy2:127.0.0.1:8888'] })
    for (const from of ['client', 'router'] as const) expect(await ask(lab, from, labAddresses.ipv4.server, 8080)).toMatchObject({ ok: false, error: 'ECONNRESET' })
    await helper.request('close', {})
    expect((await flowsOf(session)).map(({ row, via }) => [row.state, row.closedBy, via])).toEqual([1, 2].map(() => ['failed', 'gate', 'proxy2:127.0.0.1:8888']))
  })
})

describe('microsocks by SOCKS5', () => {
  test.each([['127.0.0.1', 'nft'], ['::1', 'nft'], ['127.0.0.1', 'iptables'], ['::1', 'iptables-legacy']] as const)('at %s, by %s: forwarded and local, both families', async (address, backend) => {
    const shown = address === '::1' ? '[::1]' : address
    await startSocks(address, shown)
    const { folder: session } = await openGate(helper, programs, backend, { tcp: '', send: [`8080=socks5:${shown}:1080`] })
    for (const from of ['client', 'router'] as const) {
      for (const family of ['ipv4', 'ipv6'] as const) {
        // Not `ask`: microsocks ends both directions at the end of one.
        const talk = lab.peer(from, 'talk', labAddresses[family].server, '8080')
        await talk.event(({ event, line }) => event === 'line' && String(line).startsWith(`origin ${labAddresses[family].routerToServer} `))
        talk.write('send hello')
        await talk.event(({ event, line }) => event === 'line' && line === 'hello')
        talk.write('end')
        await talk.event(({ event }) => event === 'close')
      }
    }
    await helper.request('close', {})
    const flows = await flowsOf(session)
    expect(flows.filter(({ via }) => via === `socks5:${shown}:1080`)).toHaveLength(4)
    expect(flows.filter(({ via, row }) => via === undefined && row.process?.name === 'microsocks')).toHaveLength(4)
    // What is recorded is what the client said and heard, nothing of SOCKS.
    for (const { row } of flows) expect(row.bytesUp).toBe('hello\n'.length)
  })

  test('a server that refuses is told as refused', async () => {
    await startSocks('127.0.0.1', '127.0.0.1')
    const { folder: session } = await openGate(helper, programs, 'nft', { tcp: '', send: ['8081=socks5:127.0.0.1:1080'], scope: ['forwarded'] })
    expect(await ask(lab, 'client', labAddresses.ipv4.server, 8081)).toMatchObject({ ok: false, error: 'ECONNRESET' })
    await helper.request('close', {})
    expect((await flowsOf(session)).filter(({ via }) => via !== undefined).map(({ row }) => [row.state, row.closedBy])).toEqual([['refused', 'server']])
  })
})
