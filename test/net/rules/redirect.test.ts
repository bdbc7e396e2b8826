import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'

import type { PlanWish } from '#core/plan/makePlan.ts'
import { labAddresses, makeLab, type Lab, type Place } from '#test/lab/makeLab.ts'
import { applyRules, listRules, primeIptables, type AppliedRules } from './applyRules.ts'
import { exchange, leave, startTalk, type Exchange, type Talk } from './exchanges.ts'
import { startRelay, type TestRelay } from './testRelay.ts'

// A kernel without TPROXY, or without the match for transparent sockets: the facts say so, the rules redirect, and the relay asks conntrack where flows were going.

const armed = '8080'
const other = '8081'
const excluded = { ipv4: '203.0.113.9', ipv6: '2001:db8:2::9' }

let lab: Lab
let relay: TestRelay
let before: string
let rules: AppliedRules | undefined
const running = new Set<Talk>()

beforeAll(async () => {
  lab = await makeLab()
  await lab.exec('server', ['ip', 'addr', 'add', `${excluded.ipv4}/24`, 'dev', 'up0'])
  await lab.exec('server', ['ip', 'addr', 'add', `${excluded.ipv6}/64`, 'dev', 'up0', 'nodad'])
  for (const [place, name, port] of [['server', 'far', armed], ['server', 'far', other], ['router', 'near', armed]] as const) {
    await lab.peer(place, 'serve', name, port).event((event) => event['event'] === 'listening')
  }
  await primeIptables(lab)
  before = await listRules(lab)
})
afterAll(() => lab.remove())
afterEach(async () => {
  await leave(running, rules, relay)
  rules = undefined
})

const ask = (place: Place, address: string, port: string): Promise<Exchange> => exchange(lab, relay, place, address, port)
const talk = async (place: Place, address: string, port: string): Promise<Talk> => {
  const talking = await startTalk(lab, place, address, port)
  running.add(talking)
  return talking
}

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  const open = async (wish: PlanWish, redirect = { everywhere: true }): Promise<void> => {
    relay = await startRelay(lab, { redirect })
    rules = await applyRules(lab, wish, { backend, relayPort: relay.port, redirects: true })
  }

  describe.each(['ipv4', 'ipv6'] as const)('%s', (family) => {
    const addresses = labAddresses[family]
    const { server } = addresses

    describe.each([
      { scope: 'forwarded', place: 'client', direct: addresses.client },
      { scope: 'local', place: 'router', direct: addresses.routerToServer },
    ] as const)('$scope', ({ scope, place, direct }) => {
      test('takes the armed port of this scope, not another, not an excluded server; servers see this computer', async () => {
        await open({ tcp: armed, scope: [scope], exclude: Object.values(excluded) }, { everywhere: scope === 'forwarded' })
        expect(await ask(place, server, armed)).toMatchObject({ ok: true, server: 'far', seenAddress: addresses.routerToServer, echo: 'hello', relayed: true })
        expect(await ask(place, server, other)).toMatchObject({ ok: true, server: 'far', seenAddress: direct, relayed: false })
        expect(await ask(place, excluded[family], armed)).toMatchObject({ ok: true, server: 'far', seenAddress: direct, relayed: false })
        const elsewhere = scope === 'local' ? 'client' : 'router'
        expect(await ask(elsewhere, server, armed)).toMatchObject({ ok: true, relayed: false })
      })

      test('opening does not touch what runs; draining keeps what is relayed and lets new flows go direct', async () => {
        const old = await talk(place, server, armed)
        await open({ tcp: armed, scope: [scope] })
        await old.say('after opening')
        expect(await relay.total()).toBe(0)
        const relayed = await talk(place, server, armed)
        expect(await relay.total()).toBe(1)
        await relayed.say('while open')
        await rules?.drain()
        await relayed.say('while draining')
        expect(await ask(place, server, armed)).toMatchObject({ ok: true, relayed: false })
        // A late renewal after draining takes nothing either.
        await rules?.renew()
        expect(await ask(place, server, armed)).toMatchObject({ ok: true, relayed: false })
        relayed.write('bulk 300000')
        await relayed.event((event) => event['event'] === 'bytes')
        relayed.write('end')
        await relayed.event((event) => event['event'] === 'end')
        await expect.poll(() => relay.active()).toBe(0)
        await old.say('to the end')
      })
    })

    test('forwarded: this machine\'s own addresses are left alone, local: they are intercepted, loopback too', async () => {
      await open({ tcp: armed })
      expect(await ask('client', addresses.routerToClient, armed)).toMatchObject({ ok: true, server: 'near', relayed: false })
      expect(await ask('router', addresses.routerToClient, armed)).toMatchObject({ ok: true, server: 'near', relayed: true })
      expect(await ask('router', family === 'ipv4' ? '127.0.0.1' : '::1', armed)).toMatchObject({ ok: true, server: 'near', relayed: true })
    })

    test('services of this machine: they are asked by it', async () => {
      await open({ tcp: armed, scope: ['incoming'] })
      expect(await ask('client', addresses.routerToClient, armed)).toMatchObject({ ok: true, server: 'near', seenAddress: addresses.routerToClient, echo: 'hello', relayed: true })
      expect(await ask('client', server, armed)).toMatchObject({ ok: true, relayed: false })
      expect(await ask('client', addresses.routerToClient, String(relay.port))).toMatchObject({ ok: false, relayed: false })
    })

    test('who speaks to the relay itself is turned away, from wherever', async () => {
      await open({ tcp: armed })
      for (const [place, address] of [['client', addresses.routerToClient], ['router', addresses.routerToServer]] as const) {
        expect(await ask(place, address, String(relay.port))).toMatchObject({ ok: false, relayed: false })
      }
    })

    test('a relay that died: new flows are refused, and go direct once the rules stop taking', async () => {
      await open({ tcp: armed })
      expect(await ask('router', server, armed)).toMatchObject({ relayed: true })
      await relay.kill()
      const once = (place: Place): Promise<Record<string, unknown>> => lab.peer(place, 'ask', server, armed, '--timeout', '15000').event(() => true)
      for (const place of ['router', 'client'] as const) expect(await once(place)).toEqual({ ok: false, error: 'ECONNREFUSED' })
      await rules?.drain()
      for (const place of ['router', 'client'] as const) expect(await once(place)).toMatchObject({ ok: true, server: 'far' })
      relay = await startRelay(lab)
    })
  })

  test('UDP is left alone though it was asked for, and removing leaves nothing', async () => {
    const { server } = labAddresses.ipv6
    const serving = lab.peer('server', 'serve', 'far', armed, '--udp', '--host', server)
    await serving.event((event) => event['event'] === 'listening')
    await open({ tcp: armed, udp: armed })
    for (const place of ['client', 'router'] as const) expect(await lab.peer(place, 'ask', server, armed, '--udp').event(() => true)).toMatchObject({ ok: true, server: 'far' })
    await serving.stop()
    expect(await listRules(lab)).not.toBe(before)
    await rules?.removeExactly()
    expect(await listRules(lab)).toBe(before)
  })
})
