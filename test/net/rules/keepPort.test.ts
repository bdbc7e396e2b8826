import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { labAddresses, makeLab, type Lab, type Place } from '#test/lab/makeLab.ts'
import { applyRules, listRules, primeIptables, type AppliedRules } from './applyRules.ts'
import { leave, startTalk, type Talk } from './exchanges.ts'
import { startRelay, type TestRelay } from './testRelay.ts'

// Servers see the devices' own ports: two connections with equal ends in one machine. What conntrack takes for invalid is dropped here, as many a firewall does, so
// that each test would stall if its two sides were one to conntrack.

const armed = '8080'
const other = { ipv4: { client: '198.51.100.3', server: '203.0.113.9' }, ipv6: { client: '2001:db8:1::3', server: '2001:db8:2::9' } } as const

let lab: Lab
let relay: TestRelay
let rules: AppliedRules | undefined
let before: string
let port = 41_000
const running = new Set<Talk>()

beforeAll(async () => {
  lab = await makeLab()
  for (const [{ client, server }, end] of [[other.ipv4, ['24']], [other.ipv6, ['64', 'nodad']]] as const) {
    const [length = '', ...more] = end
    await lab.exec('client', ['ip', 'addr', 'add', `${client}/${length}`, 'dev', 'up0', ...more])
    await lab.exec('server', ['ip', 'addr', 'add', `${server}/${length}`, 'dev', 'up0', ...more])
  }
  for (const number of [armed, '8081']) await lab.peer('server', 'serve', 'far', number).event((event) => event['event'] === 'listening')
  await lab.exec('router', ['nft', '-f', '-'], {
    input: `table inet firewall {
      chain in { type filter hook input priority 0; ct state invalid drop; }
      chain forward { type filter hook forward priority 0; ct state invalid drop; }
      chain out { type filter hook output priority 0; ct state invalid drop; }
    }
    table ip published { chain pre { type nat hook prerouting priority dstnat; tcp dport 9090 dnat to ${labAddresses.ipv4.server}:${armed}; }; }\n`,
  })
  await primeIptables(lab)
  before = await listRules(lab)
})
afterAll(() => lab.remove())
beforeEach(async () => {
  relay = await startRelay(lab, { hold: true, keep: true })
})
afterEach(async () => {
  await leave(running, rules, relay)
  rules = undefined
  expect(await listRules(lab)).toBe(before)
})

const talk = async (address: string, { from = [], to = armed, place = 'client' }: { from?: readonly string[]; to?: string; place?: Place } = {}): Promise<Talk & { readonly seen: string; readonly own: string }> => {
  const talking = await startTalk(lab, place, address, to, from)
  running.add(talking)
  const [{ localPort }, { line }] = [await talking.event(({ event }) => event === 'open'), await talking.event(({ event }) => event === 'line')]
  const [, seenAddress, seenPort] = String(line).split(' ')
  return Object.assign(talking, { seen: `${seenAddress ?? ''} ${seenPort ?? ''}`, own: String(localPort) })
}
const bulk = async (talking: Talk): Promise<void> => {
  talking.write('bulk 8000000')
  await talking.event((event) => event['event'] === 'bytes', 20_000)
  talking.write('end')
  await talking.event((event) => event['event'] === 'end')
}

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  const open = async (): Promise<void> => {
    rules = await applyRules(lab, { tcp: armed, keepPort: true, exclude: [] }, { backend, relayPort: relay.port, keptPort: relay.keptPort, holds: true })
  }

  describe.each(['ipv4', 'ipv6'] as const)('%s', (family) => {
    const { client, server, routerToServer } = labAddresses[family]

    test('two devices with one port, and one port to two servers: each is seen as it is, and much passes', async () => {
      await open()
      const [one, two] = [String(++port), String(++port)]
      const talks = [
        await talk(server, { from: ['--from', client, '--bind', one] }),
        await talk(server, { from: ['--from', other[family].client, '--bind', one] }),
        await talk(other[family].server, { from: ['--from', client, '--bind', one] }),
        await talk(server, { from: ['--bind', two] }),
      ]
      expect(talks.map(({ seen }) => seen)).toEqual([`${client} ${one}`, `${other[family].client} ${one}`, `${client} ${one}`, expect.stringMatching(new RegExp(` ${two}$`)) as string])
      expect(await relay.total()).toBe(4)
      await rules?.drain()
      await Promise.all(talks.map(bulk))
      await expect.poll(() => relay.active()).toBe(0)
    })

    test('the same port again and again, at once: none fails', async () => {
      await open()
      const one = String(++port)
      const seen: string[] = []
      for (let round = 0; round < 6; round++) {
        const talking = await talk(server, { from: ['--from', client, '--bind', one] })
        seen.push(talking.seen)
        // Now the one side ends first, now the other, now nobody does it politely.
        talking.write(['end', 'send END', 'reset'][round % 3] ?? '')
        if (round % 3 === 1) await talking.event(({ event }) => event === 'end')
        if (round % 3 === 1) talking.write('end')
        await talking.event(({ event }) => event === 'close')
      }
      expect(seen[0]).toBe(`${client} ${one}`)
      expect(new Set(seen.map((each) => each.split(' ')[0]))).toEqual(new Set([client]))
      expect(await relay.total()).toBe(6)
    })

    test('a port that somebody here listens on is not to be had, and the connection does not fail for it', async () => {
      await open()
      const one = String(++port)
      const near = lab.peer('router', 'serve', 'near', one)
      await near.event(({ event }) => event === 'listening')
      const talking = await talk(server, { from: ['--from', client, '--bind', one] })
      expect(talking.seen.split(' ')[0]).toBe(client)
      expect(talking.seen).not.toBe(`${client} ${one}`)
      await bulk(talking)
      await near.stop()
    })

    test('programs of this computer, and ports that are not taken, are as ever', async () => {
      await open()
      const local = await talk(server, { place: 'router' })
      expect(local.seen.split(' ')[0]).toBe(routerToServer)
      expect(await relay.total()).toBe(1)
      await bulk(local)
      const direct = await talk(server, { to: '8081', from: ['--from', client] })
      expect(direct.seen).toBe(`${client} ${direct.own}`)
      expect(await relay.total()).toBe(1)
      await bulk(direct)
    })
  })

  test('behind a masquerade, and to a published port', async () => {
    await lab.exec('router', ['nft', 'add table ip masked { chain post { type nat hook postrouting priority srcnat; oifname "sv0" masquerade; }; }'])
    try {
      await open()
      const masked = await talk(labAddresses.ipv4.server)
      expect(masked.seen.split(' ')[0]).toBe(labAddresses.ipv4.routerToServer)
      await bulk(masked)
      const published = await talk(labAddresses.ipv4.routerToClient, { to: '9090' })
      // mangle comes before DNAT: there a published port is this machine's own address still, and left alone.
      expect(await relay.total()).toBe(backend === 'nft' ? 2 : 1)
      await bulk(published)
    } finally {
      await lab.exec('router', ['nft', 'delete table ip masked'])
    }
  })
})
