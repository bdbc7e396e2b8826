import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import type { PlanWish } from '#core/plan/makePlan.ts'
import { linkLocalRoute } from '#core/rules/renderRoutes.ts'
import { defaultTable, routeProtocol } from '#core/rules/names.ts'
import type { LabProcess } from '#test/lab/labProcess.ts'
import { makeLab, type Lab } from '#test/lab/makeLab.ts'
import { applyRules, listRules, primeIptables, type AppliedRules, type ApplyOptions } from './applyRules.ts'
import { exchange, leave, startTalk, type Talk } from './exchanges.ts'
import { startRelay, type TestRelay } from './testRelay.ts'

/** A program in the router and machines on two of its links that have the same address. */
const served = '8080'
const closed = '8081'
const links = [
  { device: 'cl0', own: 'fe80::1:c', place: 'client', name: 'near' },
  { device: 'sv0', own: 'fe80::1:5', place: 'server', name: 'far' },
] as const
const there = 'fe80::2'
const far = `${there}%sv0`

let lab: Lab
let relay: TestRelay
let before: string
let rules: AppliedRules | undefined
const running = new Set<LabProcess>()

beforeAll(async () => {
  lab = await makeLab()
  for (const { device, own, place, name } of links) {
    // Of several addresses the kernel would choose one as the sender.
    for (const [where, dev, address] of [['router', device, own], [place, 'up0', there]] as const) await lab.exec(where, ['sh', '-ec', `ip -6 addr flush dev ${dev} scope link; ip addr add ${address}/64 dev ${dev} nodad`])
    for (const more of [[], ['--udp']]) await lab.peer(place, 'serve', name, served, ...more).event((event) => event['event'] === 'listening')
  }
  await primeIptables(lab)
  before = await listRules(lab)
})
afterAll(() => lab.remove())
beforeEach(async () => {
  relay = await startRelay(lab, { hold: true })
})
afterEach(async () => {
  await leave(running, rules, relay)
  rules = undefined
  expect(await listRules(lab)).toBe(before)
  await lab.exec('router', ['conntrack', '-F'], { reject: false })
})

const talk = async (address: string, ...more: readonly string[]): Promise<Talk> => {
  const talking = await startTalk(lab, 'router', address, served, more)
  running.add(talking)
  return talking
}
const ask = (address: string, port = served): ReturnType<typeof exchange> => exchange(lab, relay, 'router', address, port)
/** One datagram and its answer, and whether the relay took it as a new flow. */
async function askUdp(address: string, port = served): Promise<Record<string, unknown>> {
  const total = await relay.total()
  const answer = await lab.peer('router', 'ask', address, port, '--udp', '--timeout', '15000').event(() => true)
  return { ...answer, relayed: (await relay.total()) > total }
}

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  const open = async (wish: Partial<PlanWish> = {}, options: Partial<ApplyOptions> = {}): Promise<void> => {
    const scope = wish.scope ?? (['local'] as const)
    rules = await applyRules(lab, { tcp: `${served},${closed}`, udp: `${served},${closed}`, ...wish, scope: [...scope] }, { backend, relayPort: relay.port, holds: true, linkLocal: links.map(({ device }) => device), ...options })
  }

  // What differs without is the relay's doing, whichever tool brings it there.
  describe.each(backend === 'nft' ? [true, false] : [true])('SYNs held: %s', (holds) => {
    test('each link leads to its own machine, which sees who asked', async () => {
      await open({ scope: ['local', 'forwarded'] }, { holds })
      for (const { device, own, name } of links) {
        expect(await ask(`${there}%${device}`)).toMatchObject({ ok: true, server: name, seenAddress: `${own}%up0`, echo: 'hello', relayed: true })
        expect(await askUdp(`${there}%${device}`)).toMatchObject({ ok: true, server: name, seenAddress: `${own}%up0`, echo: 'hello', relayed: true })
      }
    })

    test('many bytes, half-closed from either side, reset from either side', async () => {
      await open({}, { holds })
      const bulk = await talk(far)
      bulk.write('bulk 300000')
      await bulk.event((event) => event['event'] === 'bytes')
      bulk.write('end')
      await bulk.event((event) => event['event'] === 'end')
      const half = await talk(far)
      half.write('send END')
      await half.event((event) => event['event'] === 'end')
      half.write('send after')
      half.write('end')
      await half.event((event) => event['event'] === 'close')
      const reset = await talk(far)
      reset.write('send RESET')
      expect(await reset.event((event) => event['event'] === 'error')).toMatchObject({ error: 'ECONNRESET' })
      const resetting = await talk(far)
      resetting.write('reset')
      await resetting.event((event) => event['event'] === 'close')
      expect(await relay.total()).toBe(4)
    })

    test('a port that a server ended is free for the next connection at once', async () => {
      await open({}, { holds })
      for (let round = 0; round < 3; round++) {
        const each = await talk(far, '--bind', '7001')
        each.write('send END')
        await each.event((event) => event['event'] === 'end')
        each.write('end')
        await each.ended
        running.delete(each)
      }
      expect(await relay.total()).toBe(3)
    })

    test('a closed port', async () => {
      await open({}, { holds })
      const answer = await ask(far, closed)
      expect(answer).toMatchObject({ ok: false, relayed: true })
      expect(holds ? ['ECONNREFUSED'] : ['ECONNREFUSED', 'ECONNRESET', 'TRUNCATED']).toContain(answer['error'])
      expect(await askUdp(far, closed)).toMatchObject({ ok: false, error: 'ECONNREFUSED', relayed: true })
    })
  })

  test('what is taken stays so while draining; new flows go direct, and in scopes and networks that are left alone all do', async () => {
    await open()
    const taken = await talk(far)
    await rules?.drain()
    await taken.say('still here')
    expect(await ask(far)).toMatchObject({ ok: true, relayed: false })
    expect(await askUdp(far)).toMatchObject({ ok: true, relayed: false })
    await taken.say('and here')
    for (const wish of [{ exclude: ['fe80::/64'] }, { excludeSources: ['fe80::1:5'] }, { scope: ['forwarded'] }, { servers: ['2001:db8::/32'] }] as const) {
      await rules?.remove()
      await open({ ...wish, ...('scope' in wish ? { scope: [...wish.scope] } : {}), ...('exclude' in wish ? { exclude: [...wish.exclude] } : {}) })
      expect(await ask(far)).toMatchObject({ ok: true, relayed: false })
      expect(await askUdp(far)).toMatchObject({ ok: true, relayed: false })
    }
  })

  test('where an interface has no route of ours yet a flow goes direct, and does so when it has', async () => {
    await open({}, { holds: false, linkLocal: ['cl0'] })
    const direct = await talk(far)
    expect(await relay.total()).toBe(0)
    const route = linkLocalRoute({ table: defaultTable, protocol: routeProtocol, preference: 0, rules: [] }, 'sv0')
    await lab.exec('router', ['ip', ...route])
    await direct.say('still direct')
    expect(await ask(far)).toMatchObject({ ok: true, relayed: true })
    await direct.say('and now')
    expect(await relay.total()).toBe(1)
    await lab.exec('router', ['ip', ...route.map((word) => (word === 'append' ? 'del' : word))])
  })
})
