import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'

import type { FlowRow } from '#core/flow/flow.ts'
import type { LabProcess } from '#test/lab/labProcess.ts'
import { labAddresses, makeLab, type Lab, type Place } from '#test/lab/makeLab.ts'

import { expectClean, snapshot } from '../helper/harness.ts'
import { installSluice, sluice, startSluice, type Installed } from './harness.ts'

/** `sluice capture --udp` with a real name server and real askers, while a resolver of the router's own holds the port on every address. */
let installed: Installed
let lab: Lab
let ownServer: LabProcess

beforeAll(async () => {
  installed = installSluice()
  lab = await makeLab()
  const { ipv4, ipv6 } = labAddresses
  const words = `dnsmasq --keep-in-foreground --log-facility=- --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file= --bind-interfaces --listen-address=${ipv4.server},${ipv6.server} --address=/www.example.test/203.0.113.7`
  await lab.spawn('server', ['sh', '-c', `exec ${words} 2>&1`]).line((line) => line.includes('started'))
  ownServer = lab.spawn('router', ['sh', '-c', `exec ${words.replace(`${ipv4.server},${ipv6.server}`, `${ipv4.routerToClient},${ipv6.routerToClient}`)} --port=5353 --log-queries 2>&1`])
  await ownServer.line((line) => line.includes('started'))
  await lab.peer('router', 'serve', 'resolver', '53', '--udp', '--host', '0.0.0.0').event(({ event }) => event === 'listening')
}, 240_000)
afterAll(async () => {
  await lab.remove()
  installed.remove()
})

function dig(place: Place, server: string, ...more: readonly string[]) {
  return lab.exec(place, ['dig', '+tries=1', '+time=10', `@${server}`, ...(more.length === 0 ? ['+short', 'www.example.test', 'A'] : more)], { reject: false })
}

test.each(['nft', 'iptables', 'iptables-legacy'])('%s: names asked for are answered as without, listed with their answers, and a refused port refuses', async (backend) => {
  const { ipv4, ipv6 } = labAddresses
  const before = await snapshot(lab)
  const session = installed.session(`names-${backend}`)
  const capture = startSluice(lab, installed, ['capture', '--udp', '53', '--refuse', '443', '--udp-idle', '1', '--backend', backend, '--json', '-o', session])
  expect(await capture.event(({ event }) => event === 'ready', 30_000)).toMatchObject({ backend, tcp: '', udp: '53,443' })

  for (const [place, server] of [['client', ipv4.server], ['client', ipv6.server], ['router', ipv4.server], ['router', ipv6.server]] as const) {
    expect((await dig(place, server)).stdout).toBe('203.0.113.7\n')
  }
  expect((await dig('client', ipv4.server, 'nowhere.test', 'AAAA')).stdout).toMatch(/status: (REFUSED|NXDOMAIN)/)
  expect((await dig('client', ipv4.server, '-p', '443', 'www.example.test')).stdout).toContain('connection refused')
  for (let id = 1; id <= 6; id++) await capture.event(({ event, flow }) => event === 'ended' && (flow as { id: number }).id === id, 20_000)
  process.kill(capture.pid, 'SIGINT')
  expect(await capture.ended).toEqual({ code: 0, signal: null })
  await expectClean(lab, before, ['peer.mjs', 'dnsmasq'])

  const rows = (await sluice(lab, installed, ['flows', session, '--json'])).stdout.trimEnd().split('\n').map((line) => JSON.parse(line) as FlowRow)
  expect(rows.slice(0, 4).map(({ transport, protocol, scope, state, server, dns, datagramsUp, datagramsDown }) => [transport, protocol, scope, state, server.address, dns?.name, dns?.rcode, datagramsUp, datagramsDown])).toEqual([
    ['udp', 'dns', 'forwarded', 'idle', ipv4.server, 'www.example.test', 'NOERROR', 1, 1],
    ['udp', 'dns', 'forwarded', 'idle', ipv6.server, 'www.example.test', 'NOERROR', 1, 1],
    ['udp', 'dns', 'local', 'idle', ipv4.server, 'www.example.test', 'NOERROR', 1, 1],
    ['udp', 'dns', 'local', 'idle', ipv6.server, 'www.example.test', 'NOERROR', 1, 1],
  ])
  expect(rows[0]?.info).toMatch(/^A www\.example\.test → 203\.0\.113\.7, \d+\.\d ms$/)
  expect(rows[5]).toMatchObject({ state: 'refused', closedBy: 'gate', datagramsUp: 1, datagramsDown: 0, server: { port: 443 } })
  expect((await sluice(lab, installed, ['show', session, '1'])).stdout).toContain('< www.example.test 0 A 203.0.113.7')
  expect((await sluice(lab, installed, ['flows', session, '--filter', 'dns.rcode != NOERROR', '--json'])).stdout.trimEnd().split('\n')).toHaveLength(1)

  const file = join(installed.folder, `${backend}.pcapng`)
  expect(await sluice(lab, installed, ['export', session, '--format', 'pcapng', '-o', file])).toMatchObject({ code: 0 })
  const text = execFileSync('tshark', ['-r', file, '-o', 'udp.check_checksum:TRUE', '-Y', 'dns.flags.response == 1', '-T', 'fields', '-e', 'dns.a', '-e', 'udp.checksum.status'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  expect(text.split('\n').filter((line) => line.startsWith('203.0.113.7'))).toEqual(Array<string>(4).fill('203.0.113.7\t1'))
})

test.each(['nft', 'iptables', 'iptables-legacy'])('%s: a name server of this computer itself, asked by a device, sees who asks', async (backend) => {
  const { ipv4, ipv6 } = labAddresses
  const before = await snapshot(lab)
  const session = installed.session(`own-${backend}`)
  const capture = startSluice(lab, installed, ['capture', '--tcp', '5353', '--udp', '5353', '--scope', 'incoming', '--udp-idle', '1', '--backend', backend, '--json', '-o', session])
  await capture.event(({ event }) => event === 'ready', 30_000)
  for (const [client, server, ...more] of [[ipv4.client, ipv4.routerToClient], [ipv6.client, ipv6.routerToClient], [ipv4.client, ipv4.routerToClient, '+tcp']] as const) {
    const asked = (): number => ownServer.output().split(`query[A] www.example.test from ${client}\n`).length
    const before = asked()
    expect((await dig('client', server, '-p', '5353', '+short', 'www.example.test', 'A', ...more)).stdout).toBe('203.0.113.7\n')
    await expect.poll(asked).toBe(before + 1)
  }
  expect((await dig('router', ipv4.routerToClient, '-p', '5353', '+short', 'www.example.test', 'A')).stdout).toBe('203.0.113.7\n')
  for (let id = 1; id <= 3; id++) await capture.event(({ event, flow }) => event === 'ended' && (flow as { id: number }).id === id, 20_000)
  process.kill(capture.pid, 'SIGINT')
  expect(await capture.ended).toEqual({ code: 0, signal: null })
  await expectClean(lab, before, ['peer.mjs', 'dnsmasq'])
  const flows = async (filter: string): Promise<FlowRow[]> => (await sluice(lab, installed, ['flows', session, '--filter', filter, '--json'])).stdout.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as FlowRow]))
  expect((await flows('incoming && dns.name == "www.example.test"')).map(({ transport, client, server }) => [transport, client.address, server.address])).toEqual([
    ['udp', ipv4.client, ipv4.routerToClient], ['udp', ipv6.client, ipv6.routerToClient],
  ])
  expect(await flows('scope == incoming')).toHaveLength(3)
  expect(await flows('scope != incoming')).toEqual([])
})
