import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'

import { divertTo } from '../../bench/divertTo.ts'
import { startRelay, type RunningProxy } from '../../bench/relayDriver.ts'
import { labAddresses, makeLab, type Lab } from '../../lab/makeLab.ts'
import { findPlaces } from '#probe/places.ts'

/** Seconds of silence for which conntrack remembers a connection that one side has ended. By default 60 once the end has been acknowledged, 120 where its FIN came twice. */
const patience = 6
/** The first of the ports that programs are given. */
const lowest = 12_000

let lab: Lab
let relay: RunningProxy
const folder = mkdtempSync(join(tmpdir(), 'sluice-tuned-'))

beforeAll(async () => {
  lab = await makeLab()
  const tune = (name: string, value: string): Promise<unknown> => lab.exec('router', ['sh', '-c', `echo '${value}' > /proc/sys/net/${name}`])
  await tune('ipv4/ip_local_port_range', `${lowest} 15000`)
  relay = await startRelay({ enter: lab.enter('router'), program: findPlaces().relay, folder, threads: 1, payload: true, port: 50_080, udp: true })
  await divertTo(lab, 7002, relay.port, true, ['local', 'incoming'])
  // Conntrack's are there once rules ask it.
  for (const state of ['fin_wait', 'close_wait', 'time_wait']) await tune(`netfilter/nf_conntrack_tcp_timeout_${state}`, String(patience))
}, 60_000)

afterAll(async () => {
  await relay.stop()
  await lab.remove()
  rmSync(folder, { recursive: true, force: true })
})

// A local flow is the relay's by its mark in conntrack, without which its next packet would go to the server, which knows nothing of it.
test.concurrent.each(['ipv4', 'ipv6'] as const)('a local flow that one side has ended may be silent for longer than conntrack remembers such (%s)', async (family) => {
  const address = labAddresses[family].server
  const server = lab.peer('server', 'serve', 'server', '7002', '--host', address)
  await server.event(({ event }) => event === 'listening')
  const client = lab.peer('router', 'talk', address, '7002')
  await client.event(({ event }) => event === 'line')
  client.write('send END')
  await client.event(({ event }) => event === 'end')
  await wait((patience + 2) * 1000)
  client.write('send still here')
  client.write('end')
  expect(await server.event(({ event }) => event === 'data' || event === 'failed')).toMatchObject({ event: 'data', bytes: 'END\nstill here\n'.length })
}, 90_000)

// The service's answers come back to the relay by that, too.
test.concurrent.each(['ipv4', 'ipv6'] as const)('and so may one to a service of this machine (%s)', async (family) => {
  const address = labAddresses[family].routerToClient
  // It is the one who speaks first after the silence: what comes from the client would make the connection known again.
  const late = `const tell = (event) => console.log(JSON.stringify(event))
    require('net').createServer({ allowHalfOpen: true }, (socket) => {
      tell({ event: 'connected', port: socket.remotePort })
      socket.resume().on('end', () => setTimeout(() => socket.end('late\\n'), ${String((patience + 2) * 1000)})).on('error', ({ code }) => tell({ event: 'failed', code }))
    }).listen(7002, '${address}', () => tell({ event: 'listening' }))`
  const server = lab.spawn('router', [process.execPath, '-e', late])
  await server.event(({ event }) => event === 'listening')
  const client = lab.peer('client', 'talk', address, '7002')
  const { localPort } = await client.event(({ event }) => event === 'open')
  expect((await server.event(({ event }) => event === 'connected'))['port']).not.toBe(localPort)
  client.write('end')
  await client.event(({ event, line }) => event === 'line' && line === 'late')
}, 90_000)

// A port that another program of the device comes to use towards that server would be two flows to conntrack and one to the server.
test.concurrent.each(['ipv4', 'ipv6'] as const)('a device is given no port towards a server of UDP that its programs are given (%s)', async (family) => {
  const address = labAddresses[family].server
  const server = lab.peer('server', 'serve', 'server', '7002', '--host', address, '--udp')
  await server.event(({ event }) => event === 'listening')
  const answer = await lab.peer('client', 'ask', address, '7002', '--udp').event(({ ok }) => ok !== undefined)
  expect(answer).toMatchObject({ ok: true, server: 'server', seenAddress: labAddresses[family].client })
  expect(answer['seenPort']).toBeLessThan(lowest)
}, 90_000)
