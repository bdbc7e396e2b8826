import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import type { PlanWish } from '#core/plan/makePlan.ts'
import type { LabProcess } from '#test/lab/labProcess.ts'
import { labAddresses, makeLab, type Lab, type Place } from '#test/lab/makeLab.ts'
import { applyRules, listRules, primeIptables, type AppliedRules, type ApplyOptions } from './applyRules.ts'
import { leave, startTalk } from './exchanges.ts'
import { startRelay, type TestRelay } from './testRelay.ts'

// What devices say to services of the router itself. The table of plans (test/net/equality) says who is taken; this, what becomes of whom is.

const armed = '8080'
const closed = '8085'
const published = '8090'
const families = ['ipv4', 'ipv6'] as const
const own = { ipv4: labAddresses.ipv4.routerToClient, ipv6: labAddresses.ipv6.routerToClient }

let lab: Lab
let relay: TestRelay
let before: string
let rules: AppliedRules | undefined
const running = new Set<LabProcess>()

beforeAll(async () => {
  lab = await makeLab()
  const serving = [lab.peer('router', 'serve', 'near', armed), lab.peer('router', 'serve', 'near', armed, '--udp'), lab.peer('server', 'serve', 'far', armed), lab.peer('server', 'serve', 'far', armed, '--udp')]
  await Promise.all(serving.map((each) => each.event((event) => event['event'] === 'listening')))
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

const ask = async (address: string, port: string, ...more: readonly string[]): Promise<Record<string, unknown>> => {
  const peer = lab.peer('client', 'ask', address, port, '--timeout', '15000', ...more)
  const answer = await peer.event(() => true)
  await peer.ended
  return { ...answer, relayed: answer['ok'] === true ? answer['seenPort'] !== answer['localPort'] : undefined }
}
const talk = async (address: string) => {
  const talking = await startTalk(lab, 'client', address, armed)
  running.add(talking)
  return talking
}
/** A socket of UDP that stays: what the service sees of it with each datagram. */
const chat = async (address: string) => {
  const peer = lab.peer('client', 'talk', address, armed, '--udp')
  running.add(peer)
  const { localPort } = await peer.event((event) => event['event'] === 'open')
  return async (word: string): Promise<Record<string, unknown>> => {
    peer.write(`send ${word}`)
    const answer = await peer.event((event) => event['event'] === 'answer' && event['echo'] === word)
    return { ...answer, relayed: answer['seenPort'] !== localPort }
  }
}

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  const open = async (wish: PlanWish, options: Pick<ApplyOptions, 'beforeTaking'> = {}): Promise<AppliedRules> => (rules = await applyRules(lab, { scope: ['incoming'], ...wish }, { backend, relayPort: relay.port, ...options }))

  test.each(families)('%s: a service sees its client, what is closed is closed', async (family) => {
    await open({ tcp: `${armed},${closed}`, udp: `${armed},${closed}` })
    expect(await ask(own[family], armed)).toMatchObject({ ok: true, server: 'near', seenAddress: labAddresses[family].client, echo: 'hello', relayed: true })
    expect(await ask(own[family], armed, '--udp')).toMatchObject({ ok: true, server: 'near', seenAddress: labAddresses[family].client, from: { address: own[family], port: Number(armed) }, relayed: true })
    // It is not held: the reset may come before or after the connection is known to be there.
    expect(['ECONNRESET', 'ECONNREFUSED']).toContain((await ask(own[family], closed))['error'])
    expect((await ask(own[family], closed, '--udp'))['error']).toBe('ECONNREFUSED')
    expect(await relay.total()).toBe(4)
  })

  test.each(families)('%s: what was there before goes on, what is relayed outlives draining, and nothing is left', async (family) => {
    const [old, oldChat] = [await talk(own[family]), await chat(own[family])]
    // Conntrack looks round first.
    await open({ tcp: armed, udp: armed }, {
      async beforeTaking() {
        await oldChat('while loading')
      },
    })
    await old.say('after opening')
    expect(await oldChat('after opening')).toMatchObject({ relayed: false })
    expect(await relay.total()).toBe(0)
    const [relayed, relayedChat] = [await talk(own[family]), await chat(own[family])]
    expect(await relayedChat('while open')).toMatchObject({ relayed: true })
    expect(await relay.total()).toBe(2)
    await rules?.drain()
    await relayed.say('while draining')
    expect(await relayedChat('while draining')).toMatchObject({ relayed: true })
    expect(await ask(own[family], armed)).toMatchObject({ ok: true, relayed: false })
    expect(await ask(own[family], armed, '--udp')).toMatchObject({ ok: true, relayed: false })
    relayed.write('bulk 300000')
    await relayed.event((event) => event['event'] === 'bytes')
    relayed.write('end')
    await relayed.event((event) => event['event'] === 'end')
    await old.say('to the end')
    await rules?.removeExactly()
    expect(await listRules(lab)).toBe(before)
  })

  test('link-local addresses are left alone, a client’s and the service’s', async () => {
    const linkLocal = async (place: Place, name: string): Promise<string> => /"local": ?"(fe80:[^"]+)"/.exec((await lab.exec(place, ['ip', '-json', '-6', 'addr', 'show', 'dev', name, 'scope', 'link'])).stdout)?.[1] ?? ''
    await open({ tcp: armed, scope: ['local', 'incoming'] })
    const { seenAddress, ...answer } = await ask(own.ipv6, armed, '--from', `${await linkLocal('client', 'up0')}%up0`)
    expect(answer).toMatchObject({ ok: true, server: 'near', relayed: false })
    expect(String(seenAddress)).toMatch(/^fe80:/)
    expect(await ask(`${await linkLocal('router', 'cl0')}%up0`, armed, '--from', labAddresses.ipv6.client)).toMatchObject({ ok: true, server: 'near', seenAddress: labAddresses.ipv6.client, relayed: false })
    expect(await relay.total()).toBe(0)
  })

  test('a relay that is killed resets its clients and their services', async () => {
    await open({ tcp: armed })
    const relayed = await talk(own.ipv4)
    await relay.kill()
    expect(await relayed.event((event) => event['event'] === 'error')).toMatchObject({ error: 'ECONNRESET' })
    await rules?.remove()
    expect(await listRules(lab)).toBe(before)
  })

  test('a service whose socket takes on its client’s mark, and kernels that answer with it', async () => {
    const tuned = ['net.ipv4.tcp_fwmark_accept', 'net.ipv4.fwmark_reflect', 'net.ipv6.fwmark_reflect']
    const set = (value: string): Promise<unknown> => lab.exec('router', ['sysctl', '-q', '-w', ...tuned.map((name) => `${name}=${value}`)])
    await set('1')
    try {
      await open({ tcp: `${armed},${closed}` })
      for (const family of families) {
        expect(await ask(own[family], armed)).toMatchObject({ ok: true, server: 'near', relayed: true })
        expect(['ECONNRESET', 'ECONNREFUSED']).toContain((await ask(own[family], closed))['error'])
      }
    } finally {
      await set('0')
    }
  })

  test('translated ports and senders: nothing is lost', async () => {
    const nat = `table ip neighbour {
      chain to { type nat hook prerouting priority dstnat; meta l4proto { tcp, udp } th dport ${published} fib daddr type local dnat to ${labAddresses.ipv4.server}:${armed}; }
      chain from { type nat hook postrouting priority srcnat; ip saddr 198.51.100.0/24 oifname != "cl0" masquerade; }
    }`
    await lab.exec('router', ['nft', '-f', '-'], { input: nat })
    try {
      await open({ tcp: `${armed},${published}`, udp: `${armed},${published}` })
      for (const transport of [[], ['--udp']]) {
        // iptables chooses by the port before the translation, and cannot see that there will be one: it is taken, and its server is the real one.
        expect(await ask(own.ipv4, published, ...transport)).toMatchObject({ ok: true, server: 'far', relayed: backend !== 'nft' })
        expect(await ask(own.ipv4, armed, ...transport)).toMatchObject({ ok: true, server: 'near', relayed: true })
      }
    } finally {
      await lab.exec('router', ['nft', 'delete', 'table', 'ip', 'neighbour'])
    }
  })
})
