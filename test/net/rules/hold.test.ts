import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { labAddresses, makeLab, peerProgram, type Lab, type Place } from '#test/lab/makeLab.ts'
import { applyRules, listRules, primeIptables, type AppliedRules } from './applyRules.ts'
import { startRelay, type TestRelay } from './testRelay.ts'

/** SYNs that wait for their server: what a client sees of a destination is what it sees without the gate. Masquerade and DNAT of others stand by. */
const served = '8080'
const closed = '8081'
const direct = '9081'
const armed = `${served},${closed}`

let lab: Lab
let relay: TestRelay
let rules: AppliedRules | undefined
let before: string

beforeAll(async () => {
  lab = await makeLab()
  await lab.peer('server', 'serve', 'far', served).event((event) => event['event'] === 'listening')
  // As a container host has them; the second would change the sender of whatever leaves by any interface but the client's.
  await lab.exec('router', ['nft', '-f', '-'], {
    input: `table ip natted {
      chain pre { type nat hook prerouting priority dstnat; tcp dport 9090 dnat to ${labAddresses.ipv4.server}:${served}; }
      chain post { type nat hook postrouting priority srcnat; ip saddr 198.51.100.0/24 oifname != "cl0" masquerade; }
    }\n`,
  })
  await primeIptables(lab)
  before = await listRules(lab)
})
afterAll(() => lab.remove())
beforeEach(async () => {
  relay = await startRelay(lab, { hold: true })
})
afterEach(async () => {
  await rules?.remove()
  rules = undefined
  await relay.stop()
  expect(await listRules(lab)).toBe(before)
})

async function ask(place: Place, address: string, port: string, timeout = '10000'): Promise<Record<string, unknown>> {
  return lab.spawn(place, [process.execPath, peerProgram, 'ask', address, port, '--timeout', timeout]).event(() => true)
}

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  const open = async (scope: 'local' | 'forwarded', holds = true): Promise<void> => {
    rules = await applyRules(lab, { tcp: armed, scope: [scope] }, { backend, relayPort: relay.port, holds })
  }

  describe.each([
    { scope: 'forwarded', place: 'client' },
    { scope: 'local', place: 'router' },
  ] as const)('$scope', ({ scope, place }) => {
    test.each(['ipv4', 'ipv6'] as const)('%s: in where there is a server, refused where there is none', async (family) => {
      const { server } = labAddresses[family]
      await open(scope)
      for (let i = 0; i < 5; i++) expect(await ask(place, server, served)).toMatchObject({ ok: true, server: 'far', echo: 'hello' })
      const without = await ask(place, server, direct)
      expect(without).toMatchObject({ ok: false, error: 'ECONNREFUSED' })
      expect(await ask(place, server, closed)).toMatchObject({ ok: false, error: 'ECONNREFUSED' })
      expect(await relay.total()).toBe(6)
    })

    // As a listener does whose queue of half-open connections a flood has filled.
    test.each([true, false])('in by a cookie too, its SYN held: %s', async (holds) => {
      await open(scope, holds)
      await lab.exec('router', ['sysctl', '-w', 'net.ipv4.tcp_syncookies=2'])
      try {
        for (const { server } of Object.values(labAddresses)) expect(await ask(place, server, served)).toMatchObject({ ok: true, server: 'far', echo: 'hello' })
        expect(await relay.total()).toBe(2)
        expect((await lab.exec('router', ['nstat', '-asz', 'TcpExtSyncookiesRecv'])).stdout).not.toMatch(/SyncookiesRecv +0 /)
      } finally {
        await lab.exec('router', ['sysctl', '-w', 'net.ipv4.tcp_syncookies=1'])
      }
    })

    test('while draining, what was taken goes on and a new flow goes direct', async () => {
      await open(scope)
      const talk = lab.peer(place, 'talk', labAddresses.ipv4.server, served)
      await talk.event((event) => event['event'] === 'line')
      await rules?.drain()
      talk.write('send still here')
      await talk.event((event) => event['event'] === 'line' && event['line'] === 'still here')
      const total = await relay.total()
      expect(await ask(place, labAddresses.ipv4.server, served)).toMatchObject({ ok: true })
      expect(await ask(place, labAddresses.ipv4.server, closed)).toMatchObject({ ok: false, error: 'ECONNREFUSED' })
      expect(await relay.total()).toBe(total)
      await talk.stop()
    })
  })

  test.runIf(backend === 'nft')('what went direct for want of a relay stays direct when there is one again', async () => {
    await open('forwarded', false)
    await relay.kill()
    const talk = lab.peer('client', 'talk', labAddresses.ipv4.server, served)
    await talk.event((event) => event['event'] === 'line')
    relay = await startRelay(lab, { hold: true })
    expect(await ask('client', labAddresses.ipv4.server, served)).toMatchObject({ ok: true })
    talk.write('send still here')
    await talk.event((event) => event['event'] === 'line' && event['line'] === 'still here')
    expect(await relay.total()).toBe(1)
    await talk.stop()
  })

  // mangle comes before DNAT: there a published port is this machine's own address still, and left alone.
  test(`a published port leads to its server${backend === 'nft' ? ' through the relay' : ''}`, async () => {
    await open('forwarded')
    expect(await ask('client', labAddresses.ipv4.routerToClient, '9090')).toMatchObject({ ok: true, server: 'far' })
    expect(await relay.total()).toBe(backend === 'nft' ? 1 : 0)
  })
})
