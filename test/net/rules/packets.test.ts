import { mkdirSync, rmdirSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { makePlan, type PlanWish } from '#core/plan/makePlan.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import { renderRoutes } from '#core/rules/renderRoutes.ts'
import { listCgroups } from '#probe/cgroups.ts'
import { iptablesTools } from '#probe/tools.ts'
import { labAddresses, makeLab, type Lab, type Place } from '#test/lab/makeLab.ts'
import type { LabProcess } from '#test/lab/labProcess.ts'
import { applyRules, listRules, primeIptables, type AppliedRules } from './applyRules.ts'
import { exchange, leave, startTalk, type Exchange, type Talk } from './exchanges.ts'
import { startRelay, type TestRelay } from './testRelay.ts'

const armed = '8080'
const other = '8081'
const excluded = { ipv4: '203.0.113.9', ipv6: '2001:db8:2::9' }

let lab: Lab
let relay: TestRelay
let before: string
let rules: AppliedRules | undefined
const running = new Set<LabProcess>()

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
beforeEach(async () => {
  relay = await startRelay(lab)
})
afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') console.log(await describeRouter())
  await leave(running, rules, relay)
  rules = undefined
})

/** What was where when a test failed. */
async function describeRouter(): Promise<string> {
  const texts: string[] = []
  for (const place of ['client', 'router', 'server'] as const) {
    for (const argv of [['ss', '-tan'], ['ip', '-s', 'neigh'], ...(place === 'router' ? [['conntrack', '-L'], ['conntrack', '-L', '-f', 'ipv6'], ['ip6tables-legacy', '-t', 'mangle', '-vnL'], ['ip6tables-nft', '-t', 'mangle', '-vnL'], ['nft', 'list', 'ruleset'], ['ip', '-6', 'rule'], ['nstat', '-az']] : [])]) {
      texts.push(`## ${place}: ${argv.join(' ')}\n${(await lab.exec(place, argv, { reject: false })).stdout}`)
    }
  }
  return texts.join('\n')
}

const ask = (place: Place, address: string, port: string, enter: readonly string[] = []): Promise<Exchange> => exchange(lab, relay, place, address, port, enter)
const talk = async (place: Place, address: string, port: string): Promise<Talk> => {
  const talking = await startTalk(lab, place, address, port)
  running.add(talking)
  return talking
}

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  const open = async (wish: PlanWish, options: { leaseSeconds?: number; cgroupPrefix?: string } = {}): Promise<AppliedRules> => (rules = await applyRules(lab, wish, { backend, relayPort: relay.port, ...options }))

  describe.each(['ipv4', 'ipv6'] as const)('%s', (family) => {
    const addresses = labAddresses[family]
    const { server } = addresses

    describe.each([
      { scope: 'forwarded', place: 'client', seen: addresses.client },
      { scope: 'local', place: 'router', seen: addresses.routerToServer },
    ] as const)('$scope', ({ scope, place, seen }) => {
      test('takes the armed port, not another, not an excluded server; the server sees who asked', async () => {
        await open({ tcp: armed, scope: [scope], exclude: Object.values(excluded) })
        expect(await ask(place, server, armed)).toMatchObject({ ok: true, server: 'far', seenAddress: seen, echo: 'hello', relayed: true })
        expect(await ask(place, server, other)).toMatchObject({ ok: true, server: 'far', seenAddress: seen, relayed: false })
        expect(await ask(place, excluded[family], armed)).toMatchObject({ ok: true, server: 'far', seenAddress: seen, relayed: false })
      })

      test('takes nothing of the other scope', async () => {
        await open({ tcp: armed, scope: [scope === 'local' ? 'forwarded' : 'local'] })
        expect(await ask(place, server, armed)).toMatchObject({ ok: true, seenAddress: seen, relayed: false })
      })

      test('opening does not touch what runs, draining keeps what is relayed and lets new flows go direct', async () => {
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
        await relayed.say('still')
        relayed.write('bulk 300000')
        await relayed.event((event) => event['event'] === 'bytes')
        relayed.write('end')
        await relayed.event((event) => event['event'] === 'end')
        await old.say('to the end')
      })
    })

    test('forwarded: this machine\'s own addresses are left alone, local: they are intercepted, loopback too', async () => {
      const loopback = family === 'ipv4' ? '127.0.0.1' : '::1'
      await open({ tcp: armed })
      expect(await ask('client', addresses.routerToClient, armed)).toMatchObject({ ok: true, server: 'near', relayed: false })
      expect(await ask('router', addresses.routerToClient, armed)).toMatchObject({ ok: true, server: 'near', relayed: true })
      expect(await ask('router', loopback, armed)).toMatchObject({ ok: true, server: 'near', relayed: true })
    })

    test('forwarded: what has no hop left ends here, as it would without us', async () => {
      const route = (...more: readonly string[]): Promise<unknown> => lab.exec('client', ['ip', 'route', 'replace', 'default', 'via', addresses.routerToClient, ...more])
      await open({ tcp: armed, scope: ['forwarded'] })
      await route('hoplimit', '1')
      try {
        expect(await ask('client', server, armed)).toMatchObject({ ok: false, error: 'EHOSTUNREACH', relayed: false })
        await route('hoplimit', '2')
        expect(await ask('client', server, armed)).toMatchObject({ ok: true, relayed: true })
      } finally {
        await route()
      }
    })

    test('only by the chosen interface', async () => {
      await open({ tcp: armed, scope: ['forwarded'], interfaces: ['sv0'] })
      expect(await ask('client', server, armed)).toMatchObject({ ok: true, relayed: false })
      await rules?.remove()
      await open({ tcp: armed, scope: ['forwarded'], interfaces: ['sv0', 'cl*'] })
      expect(await ask('client', server, armed)).toMatchObject({ ok: true, relayed: true })
    })

    test('only the chosen user', async () => {
      await open({ tcp: armed, users: [4711, 4712], scope: ['local'] })
      const as = (uid: number): string[] => ['setpriv', `--reuid=${uid}`, '--clear-groups', '--']
      expect(await ask('router', server, armed)).toMatchObject({ ok: true, relayed: false })
      expect(await ask('router', server, armed, as(4711))).toMatchObject({ ok: true, relayed: true })
      expect(await ask('router', server, armed, as(4712))).toMatchObject({ ok: true, relayed: true })
      expect(await ask('router', server, armed, as(4713))).toMatchObject({ ok: true, relayed: false })
    })

    test('only the chosen cgroup, with what is beneath it', async (context) => {
      const prefix = (await listCgroups())?.prefix
      const name = `sluicelab-${process.pid}`
      const root = `/sys/fs/cgroup/${prefix === '' ? '' : `${prefix}/`}${name}`
      try {
        mkdirSync(`${root}/inner`, { recursive: true })
      } catch (error) {
        return context.skip(`no cgroup can be made here: ${String(error)}`)
      }
      try {
        await open({ tcp: armed, scope: ['local'], cgroups: [name] }, { cgroupPrefix: prefix ?? '' })
        const within = (path: string): string[] => ['sh', '-c', 'echo $$ > "$0"/cgroup.procs && exec "$@"', path]
        expect(await ask('router', server, armed)).toMatchObject({ ok: true, relayed: false })
        expect(await ask('router', server, armed, within(`${root}/inner`))).toMatchObject({ ok: true, relayed: true })
      } finally {
        await rules?.remove()
        for (const path of [`${root}/inner`, root]) await expect.poll(() => removed(path)).toBe(true)
      }
    })

    test('a relay that died: local flows are refused or dropped, never misdelivered, and go direct once the rules stop taking', async () => {
      await open({ tcp: armed })
      expect(await ask('router', server, armed)).toMatchObject({ relayed: true })
      await relay.kill()
      // Who is to hear nothing need not wait for long; who is to hear something may.
      const once = (place: Place, timeout = '10000'): Promise<Record<string, unknown>> => lab.peer(place, 'ask', server, armed, '--timeout', timeout).event(() => true)
      const asked = backend === 'nft' ? '10000' : '500'
      expect(await once('router', asked)).toEqual({ ok: false, error: backend === 'nft' ? 'ECONNREFUSED' : 'TIMEOUT' })
      expect(await once('client', asked)).toMatchObject(backend === 'nft' ? { ok: true, server: 'far' } : { ok: false, error: 'TIMEOUT' })
      await rules?.drain()
      expect(await once('router')).toMatchObject({ ok: true, server: 'far' })
      expect(await once('client')).toMatchObject({ ok: true, server: 'far' })
      relay = await startRelay(lab)
    })

    test('with reverse-path checks by mark, as wg-quick and Tailscale set them', async () => {
      const set = (value: number): Promise<unknown> =>
        lab.exec('router', ['sh', '-c', `for f in src_valid_mark rp_filter; do for d in all cl0 sv0 lo; do echo ${value} > /proc/sys/net/ipv4/conf/$d/$f; done; done`])
      await set(1)
      try {
        await open({ tcp: armed })
        expect(await ask('client', server, armed)).toMatchObject({ ok: true, relayed: true })
        expect(await ask('router', server, armed)).toMatchObject({ ok: true, relayed: true })
      } finally {
        await set(0)
      }
    })
  })

  test('UDP to an armed number is left alone', async () => {
    const serving = lab.peer('server', 'serve', 'far', armed, '--udp', '--host', labAddresses.ipv6.server)
    await serving.event((event) => event['event'] === 'listening')
    await open({ tcp: armed })
    const { server } = labAddresses.ipv6
    for (const place of ['client', 'router'] as const) expect(await lab.peer(place, 'ask', server, armed, '--udp').event(() => true)).toMatchObject({ ok: true, server: 'far' })
    await serving.stop()
  })

  test('removing leaves rules and routes byte for byte as they were, also when done twice or loaded twice', async () => {
    expect(await listRules(lab)).toBe(before)
    const everything: PlanWish = { tcp: '1-79,80,443,8000-8100', users: [1, 2], interfaces: ['cl0', 'veth*'], exclude: ['10.0.0.0/8', '2001:db8:f::/48'] }
    await open(everything)
    expect(await listRules(lab)).not.toBe(before)
    await rules?.drain()
    await rules?.removeExactly()
    expect(await listRules(lab)).toBe(before)
    await rules?.remove()
    expect(await listRules(lab)).toBe(before)
  })

  if (backend !== 'nft') {
    test('whatever is left of several loads, or of half a load, is swept', async () => {
      const first = await open({ tcp: armed, scope: ['forwarded'] })
      for (const argv of renderRoutes(compileRules(makePlan({ tcp: armed }), { tools: [], ipv6: true, interfaces: [] })).revert) await lab.exec('router', ['ip', ...argv])
      await open({ tcp: other, users: [5] })
      const { restore } = iptablesTools(backend, 'ipv4')
      await lab.exec('router', [restore, '--noflush'], { input: '*mangle\n-A PREROUTING -i cl0 -j SLUICE_PRE\n-D OUTPUT -j SLUICE_OUT\nCOMMIT\n' })
      await first.remove()
      expect(await listRules(lab)).toBe(before)
    })
  }
})

function removed(path: string): boolean {
  try {
    rmdirSync(path)
    return true
  } catch {
    return false
  }
}
