import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import type { PlanWish } from '#core/plan/makePlan.ts'
import type { LabProcess } from '#test/lab/labProcess.ts'
import { labAddresses, makeLab, type Lab, type Place } from '#test/lab/makeLab.ts'
import { applyRules, listRules, primeIptables, whileRenewed, type AppliedRules, type ApplyOptions } from './applyRules.ts'
import { leave } from './exchanges.ts'
import { startRelay, type TestRelay } from './testRelay.ts'

const armed = '5300'
const other = '5301'
const excluded = { ipv4: '203.0.113.9', ipv6: '2001:db8:2::9' }
const families = ['ipv4', 'ipv6'] as const

let lab: Lab
let relay: TestRelay
let before: string
let rules: AppliedRules | undefined
const running = new Set<LabProcess>()

async function serve(place: Place, name: string, port: string, host: string): Promise<LabProcess> {
  const serving = lab.peer(place, 'serve', name, port, '--udp', '--host', host)
  await serving.event((event) => event['event'] === 'listening')
  return serving
}

beforeAll(async () => {
  lab = await makeLab()
  await lab.exec('server', ['ip', 'addr', 'add', `${excluded.ipv4}/24`, 'dev', 'up0'])
  await lab.exec('server', ['ip', 'addr', 'add', `${excluded.ipv6}/64`, 'dev', 'up0', 'nodad'])
  for (const family of families) {
    const { server, routerToClient } = labAddresses[family]
    for (const port of [armed, other]) await serve('server', 'far', port, server)
    await serve('server', 'far', armed, excluded[family])
    await serve('router', 'near', other, routerToClient)
  }
  await primeIptables(lab)
  before = await listRules(lab)
})
afterAll(() => lab.remove())
beforeEach(async () => {
  relay = await startRelay(lab)
})
afterEach(async () => {
  await leave(running, rules, relay)
  rules = undefined
  // Whatever conntrack remembers of a test is none of the next one's business.
  await lab.exec('router', ['conntrack', '-F'], { reject: false })
})

/** One datagram and its answer, and whether the relay took it as a new flow. */
async function ask(place: Place, address: string, port: string, ...more: readonly string[]): Promise<Record<string, unknown> & { relayed: boolean }> {
  const total = await relay.total()
  const peer = lab.peer(place, 'ask', address, port, '--udp', '--timeout', '10000', ...more)
  const answer = await peer.event(() => true)
  // Its port is free for the next one only when it is gone.
  await peer.ended
  return { ...answer, relayed: (await relay.total()) > total }
}

interface Talk extends LabProcess {
  /** Sends a word and awaits its answer: what the server saw. */
  say(word: string): Promise<{ readonly seenAddress: string; readonly seenPort: number }>
}
async function talk(place: Place, address: string, port: string, ...more: readonly string[]): Promise<Talk> {
  const peer = lab.peer(place, 'talk', address, port, '--udp', ...more)
  running.add(peer)
  await peer.event((event) => event['event'] === 'open')
  return Object.assign(peer, {
    async say(word: string) {
      peer.write(`send ${word}`)
      return (await peer.event((event) => event['event'] === 'answer' && event['echo'] === word)) as unknown as { seenAddress: string; seenPort: number }
    },
  })
}

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  const open = async (wish: PlanWish, options: Partial<ApplyOptions> = {}): Promise<AppliedRules> => (rules = await applyRules(lab, wish, { backend, relayPort: relay.port, ...options }))

  describe.each(families)('%s', (family) => {
    const addresses = labAddresses[family]
    const { server } = addresses

    describe.each([
      { scope: 'forwarded', place: 'client', seen: addresses.client },
      { scope: 'local', place: 'router', seen: addresses.routerToServer },
    ] as const)('$scope', ({ scope, place, seen }) => {
      test('takes the armed port, not another, not an excluded server; the server sees who asked', async () => {
        await open({ tcp: '', udp: armed, scope: [scope], exclude: Object.values(excluded) })
        expect(await ask(place, server, armed)).toMatchObject({ ok: true, server: 'far', seenAddress: seen, echo: 'hello', from: { address: server, port: Number(armed) }, relayed: true })
        expect(await ask(place, server, other)).toMatchObject({ ok: true, server: 'far', seenAddress: seen, relayed: false })
        expect(await ask(place, excluded[family], armed)).toMatchObject({ ok: true, server: 'far', seenAddress: seen, relayed: false })
      })

      test('takes nothing of the other scope', async () => {
        await open({ tcp: '', udp: armed, scope: [scope === 'local' ? 'forwarded' : 'local'] })
        expect(await ask(place, server, armed)).toMatchObject({ ok: true, seenAddress: seen, relayed: false })
      })

      test.each(['connected', 'unconnected'] as const)('opening leaves alone what goes to and fro, draining keeps what is relayed and lets new flows go direct; a %s socket', async (kind) => {
        const more = kind === 'connected' ? [] : ['--unconnected']
        const old = await talk(place, server, armed, ...more)
        const { seenPort } = await old.say('before')
        // For forwarded flows conntrack must have seen them; sockets of this machine are found without it.
        await open({ tcp: '', udp: armed, scope: [scope] }, scope === 'forwarded' ? { beforeTaking: async () => { await old.say('looked at') } } : {})
        expect(await old.say('after opening')).toMatchObject({ seenPort })
        expect(await relay.total()).toBe(0)

        const relayed = await talk(place, server, armed, ...more)
        const { seenPort: itsPort } = await relayed.say('while open')
        expect(await relay.total()).toBe(1)
        expect(await relayed.say('again')).toMatchObject({ seenPort: itsPort })
        await rules?.drain()
        expect(await relayed.say('while draining')).toMatchObject({ seenPort: itsPort })
        expect(await ask(place, server, armed)).toMatchObject({ ok: true, relayed: false })
        // A late renewal after draining takes nothing either.
        await rules?.renew()
        expect(await ask(place, server, armed)).toMatchObject({ ok: true, relayed: false })
        expect(await relayed.say('still')).toMatchObject({ seenPort: itsPort })
        expect(await old.say('to the end')).toMatchObject({ seenPort })
        expect(await relay.total()).toBe(1)
      })

      test('a flow the relay let go of for its silence comes back to it, though conntrack knows it well', async () => {
        await relay.stop()
        relay = await startRelay(lab, { udpIdle: 1 })
        await open({ tcp: '', udp: armed, scope: [scope] })
        const flow = await talk(place, server, armed)
        await flow.say('one')
        await expect.poll(() => relay.active(), { timeout: 20_000, interval: 100 }).toBe(0)
        await flow.say('two')
        expect(await relay.total()).toBe(2)
      })

      test('an answer to an armed port is no flow of its own', async () => {
        await open({ tcp: '', udp: armed })
        expect(await ask(place, server, other, '--bind', armed)).toMatchObject({ ok: true, seenPort: Number(armed), relayed: false })
        if (scope === 'forwarded') expect(await ask('client', addresses.routerToClient, other, '--bind', armed)).toMatchObject({ ok: true, server: 'near', relayed: false })
      })
    })

    test('a device that happens on a port of ours is taken like any other, and each hears its own answers', async () => {
      await open({ tcp: '', udp: armed, scope: ['forwarded'] })
      const first = await talk('client', server, armed)
      const { seenPort: ours } = await first.say('one')
      const second = await talk('client', server, armed, '--bind', String(ours))
      const seen = await second.say('two')
      expect(seen.seenAddress).toBe(addresses.client)
      expect(seen.seenPort).not.toBe(ours)
      expect(await first.say('three')).toMatchObject({ seenPort: ours })
      expect(await second.say('four')).toMatchObject({ seenPort: seen.seenPort })
      expect(await relay.total()).toBe(2)
    })

    test('a program that happens on a port that was ours is taken like any other; if it goes direct it does so to its end', async () => {
      await relay.stop()
      relay = await startRelay(lab, { udpIdle: 1 })
      await open({ tcp: '', udp: armed, scope: ['local'] })
      const [one, another] = [await ask('router', server, armed), await ask('router', server, armed)].map(({ seenPort }) => String(seenPort))
      await expect.poll(() => relay.active(), { timeout: 20_000, interval: 100 }).toBe(0)
      expect(await ask('router', server, armed, '--bind', one ?? '')).toMatchObject({ ok: true, server: 'far', relayed: true })
      await rules?.drain()
      expect(await ask('router', server, armed, '--bind', another ?? '')).toMatchObject({ ok: true, seenPort: Number(another), relayed: false })
      await rules?.remove()
      await open({ tcp: '', udp: armed, scope: ['local'] })
      expect(await ask('router', server, armed, '--bind', another ?? '')).toMatchObject({ ok: true, seenPort: Number(another), relayed: false })
    })

    // There is no binding and connecting at once. For that moment a socket is bound to the server and is anybody's: here it stays so.
    test('a datagram goes past a transparent socket that is bound to its server and not connected yet, to the relay', async () => {
      await open({ tcp: '', udp: armed })
      const [kind, host] = family === 'ipv4' ? ['UDP4', server] : ['UDP6', `[${server}]`]
      const bound = lab.spawn('router', ['socat', '-u', `${kind}-RECV:${armed},bind=${host},ip-transparent,reuseaddr`, 'STDOUT'])
      running.add(bound)
      await expect.poll(async () => (await lab.exec('router', ['ss', '-Huan', `sport = :${armed}`])).stdout, { timeout: 20_000, interval: 50 }).toContain(`${host}:${armed}`)
      for (const place of ['client', 'router'] as const) expect(await ask(place, server, armed)).toMatchObject({ ok: true, server: 'far', relayed: true })
      expect(bound.output()).toBe('')
    })

    test('what a resolver on every address of this machine hears is its own', async () => {
      await serve('router', 'near', armed, family === 'ipv4' ? '0.0.0.0' : '::').then((each) => running.add(each))
      await open({ tcp: '', udp: armed })
      expect(await ask('client', addresses.routerToClient, armed)).toMatchObject({ ok: true, server: 'near', relayed: false })
      for (const place of ['client', 'router'] as const) expect(await ask(place, server, armed)).toMatchObject({ ok: true, server: 'far', from: { address: server, port: Number(armed) }, relayed: true })
    })

    test('a relay that died: nothing is delivered to a local program that happens to listen, and new flows go direct once the rules stop taking', async () => {
      await serve('router', 'near', armed, family === 'ipv4' ? '0.0.0.0' : '::').then((each) => running.add(each))
      await open({ tcp: '', udp: armed }, backend === 'nft' ? { leaseSeconds: 600 } : {})
      await relay.kill()
      // Who is to hear nothing need not listen for long; who is to hear something may.
      const once = (place: Place, timeout = '10000'): Promise<Record<string, unknown>> => lab.peer(place, 'ask', server, armed, '--udp', '--timeout', timeout).event(() => true)
      expect(await once('router', '700')).toEqual({ ok: false, error: 'TIMEOUT' })
      expect(await once('client', backend === 'nft' ? '10000' : '700')).toMatchObject(backend === 'nft' ? { ok: true, server: 'far' } : { ok: false, error: 'TIMEOUT' })
      await rules?.drain()
      for (const place of ['client', 'router'] as const) expect(await once(place)).toMatchObject({ ok: true, server: 'far' })
      relay = await startRelay(lab)
    })
  })

  test('a refused port answers for itself, as the server it stands for', async () => {
    await open({ tcp: '', udp: armed, refuse: '5399' })
    for (const family of families) {
      for (const place of ['client', 'router'] as const) {
        expect(await ask(place, labAddresses[family].server, '5399')).toEqual({ ok: false, error: 'ECONNREFUSED', relayed: true })
      }
    }
  })

  test('broadcasts are left alone', async () => {
    await serve('server', 'far', '5302', '0.0.0.0').then((each) => running.add(each))
    await open({ tcp: '', udp: '5302' })
    expect(await ask('router', '203.0.113.255', '5302', '--broadcast')).toMatchObject({ ok: true, server: 'far', relayed: false })
  })

  test('only the chosen user, and TCP beside it is not taken', async () => {
    const tcp = lab.peer('server', 'serve', 'far', armed)
    running.add(tcp)
    await tcp.event((event) => event['event'] === 'listening')
    await open({ tcp: '', udp: armed, scope: ['local'], users: [4711] })
    const { server } = labAddresses.ipv4
    expect(await ask('router', server, armed)).toMatchObject({ ok: true, relayed: false })
    expect(await lab.peer('router', 'ask', server, armed).event(() => true)).toMatchObject({ ok: true, server: 'far' })
  })

  test('removing leaves rules and routes byte for byte as they were', async () => {
    const old = await talk('router', labAddresses.ipv4.server, armed)
    const unconnected = await talk('router', labAddresses.ipv6.server, armed, '--unconnected')
    await open({ tcp: '80', udp: `53,${armed}`, refuse: '443' })
    expect(await listRules(lab)).not.toBe(before)
    await rules?.drain()
    await rules?.removeExactly()
    expect(await listRules(lab)).toBe(before)
    await old.stop()
    await unconnected.stop()
  })

  if (backend === 'nft') {
    test('the lease of UDP runs out by itself: new flows go direct, relayed ones go on, renewing takes again', async () => {
      const { server } = labAddresses.ipv4
      await open({ tcp: '', udp: armed }, { leaseSeconds: 2 })
      const flow = await talk('client', server, armed)
      const { seenPort } = await whileRenewed(rules, () => flow.say('one'))
      expect(await relay.total()).toBe(1)
      await expect.poll(async () => (await ask('client', server, armed)).relayed || (await ask('router', server, armed)).relayed, { timeout: 20_000, interval: 200 }).toBe(false)
      expect(await flow.say('two')).toMatchObject({ seenPort })
      for (const place of ['client', 'router'] as const) expect(await whileRenewed(rules, () => ask(place, server, armed))).toMatchObject({ relayed: true })
    })
  }
})
