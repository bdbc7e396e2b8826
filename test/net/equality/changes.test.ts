import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'

import { makePlan } from '#core/plan/makePlan.ts'
import type { PlanWish } from '#core/plan/makePlan.ts'
import { scopes } from '#core/plan/plan.ts'
import type { Backend, InterceptionPlan } from '#core/plan/plan.ts'
import { carriedBy, compileRules } from '#core/rules/compileRules.ts'
import type { Carried } from '#core/rules/ruleSet.ts'
import { renderIptables } from '#core/rules/renderIptables.ts'
import { renderNft } from '#core/rules/renderNft.ts'
import { digestRules } from '#probe/digestRules.ts'
import { iptablesTools } from '#probe/tools.ts'
import type { Place } from '#test/lab/makeLab.ts'
import { seed } from '#test/support/seed.ts'
import { backendOf, columns } from '../faults/faultTable.ts'
import { rowsOf } from '../handOver/support.ts'
import { expectClean, makeProgramFolder, makeSession, snapshot, startTestHelper, withoutLease } from '../helper/harness.ts'
import type { TestHelper } from '../helper/harness.ts'
import { olderTool } from '../helper/olderTools.ts'
import { converse, converseByUdp } from './conversations.ts'
import type { Conversation, Server } from './conversations.ts'
import { plans, stances, udpChoicePlans, udpPlans, ways } from './plans.ts'
import { proxyLooks, startProxies } from './proxies.ts'
import { closedPort, endsOf, makeVerdictLab } from './verdicts.ts'
import type { VerdictLab } from './verdicts.ts'

// The same plans in random order, each with a way for new flows to go, changed while open and drained and resumed in between. SEED=number repeats an order, STEPS=number makes it longer.

const steps = Number(process.env['STEPS'] ?? 8)
/** So that a busy machine ends no flow of UDP. */
const patient = { udpIdle: { other: 600 } } as const
const wishes = { ...plans, ...udpPlans, ...udpChoicePlans }
type Ends = readonly [Place, 'ipv4' | 'ipv6', Server]
const tcpEnds: readonly Ends[] = [['client', 'ipv4', 'server'], ['client', 'ipv6', 'server'], ['router', 'ipv4', 'server'], ['router', 'ipv6', 'server'], ['client', 'ipv4', 'routerToClient'], ['client', 'ipv6', 'routerToClient']]
const udpEnds: readonly Ends[] = [['client', 'ipv4', 'server'], ['router', 'ipv6', 'server'], ['client', 'ipv6', 'routerToClient']]
/** Of conversations by UDP: below whatever anybody else here has. Never the same again, since conntrack remembers. */
let nextPort = 1100

let programs: Awaited<ReturnType<typeof makeProgramFolder>>
let verdicts: VerdictLab
let helper: TestHelper
let before: string
/** Begun before any gate was open. */
let direct: readonly Conversation[]
beforeAll(async () => {
  programs = await makeProgramFolder()
  verdicts = await makeVerdictLab({ udp: true, closed: true })
  await startProxies(verdicts.lab, programs.folder)
  // As beside any firewall, conntrack knows what is under way.
  await verdicts.lab.exec('router', ['nft', '-f', '-'], { input: 'table inet theirs { chain in { type filter hook prerouting priority filter; ct state invalid counter; }; chain out { type filter hook output priority filter; ct state invalid counter; }; }' })
  await verdicts.lab.exec('router', ['sh', '-ec', 'for each in udp_timeout udp_timeout_stream; do echo 600 > /proc/sys/net/netfilter/nf_conntrack_$each; done'])
  direct = [...await begin([['client', 'ipv4', 'server'], ['router', 'ipv6', 'server'], ['client', 'ipv6', 'routerToClient']]), ...await beginByUdp()]
  expect(direct.map((each) => each.relayed)).toEqual(direct.map(() => false))
})
afterEach(async () => {
  helper.kill()
  // Of one that failed; the next one is not to stumble over it.
  await expect.poll(() => snapshot(verdicts.lab), { timeout: 15_000, interval: 200 }).toBe(before)
})
afterAll(async () => {
  await verdicts.remove()
  programs.remove()
})

function planOf(wish: PlanWish, backend: Backend): { plan: InterceptionPlan; digest: string } {
  const plan = makePlan({ ...wish, backend, ...(wish.cgroups === undefined ? {} : { cgroups: [verdicts.cgroup] }) })
  return { plan, digest: digestRules(compileRules(plan, facts())) }
}
const facts = () => ({ tools: [], ipv6: true, lenientLo: true, interfaces: ['lo', 'cl0', 'sv0'], cgroupPrefix: verdicts.cgroupPrefix })

/** mulberry32 */
function randomFrom(state: number): (below: number) => number {
  let a = state
  return (below) => {
    a = (a + 0x6d2b79f5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}

function begin(ends: readonly Ends[], port = 8080): Promise<Conversation[]> {
  return Promise.all(ends.map((each) => converse(verdicts.lab, ...each, port)))
}
function beginByUdp(): Promise<Conversation[]> {
  return Promise.all(udpEnds.map((each) => converseByUdp(verdicts.lab, ...each, nextPort++)))
}

/** What is of ours in the kernel, chain by chain: the order in which chains were made is no meaning. */
async function ours(backend: Backend, enter: readonly string[] = [], input = ''): Promise<string[]> {
  const load = (text: string): string[] => [...enter, 'sh', '-ec', text]
  if (backend === 'nft') {
    const { stdout } = await verdicts.lab.exec('router', load(`${input === '' ? '' : 'nft -f -; '}nft --stateless list table inet sluice`), { input })
    const blocks = stdout.replace(/^table inet sluice \{.*\n(\tflags owner\n)?/, '').split(/\n(?=\t(?:set|chain) )/)
    // The lease comes and goes, and so do sockets that were there before; their elements are no part of a plan.
    return blocks.map((block) => block.replace(/\n\}?\s*$/, '').trim()).filter((block) => block !== '' && !/^set (?:lease|old_udp)|^#/.test(block)).sort()
  }
  const { restore, save } = iptablesTools(backend, 'ipv6')
  const { stdout } = await verdicts.lab.exec('router', load(`${input === '' ? '' : `${restore} --noflush; `}${save} -t mangle`), { input })
  const lines = withoutLease(stdout).split('\n').filter((line) => /SLUICE/.test(line) && !/-p udp .*--sports? /.test(line)).map((line) => line.replace(/ \[\d+:\d+\]$/, ''))
  const chains = new Map<string, string[]>()
  for (const line of lines) {
    const chain = /^(?::|-A )(\S+)/.exec(line)?.[1] ?? ''
    chains.set(chain, [...(chains.get(chain) ?? []), line])
  }
  return [...chains.values()].map((chain) => chain.join('\n')).sort()
}

/** Each once, in random order; then anew. */
function dealFrom<T>(cards: readonly T[], random: (below: number) => number): () => T {
  let deck: T[] = []
  return () => {
    if (deck.length === 0) deck = [...cards]
    return deck.splice(random(deck.length), 1)[0] as T
  }
}

/** The relay's other listener, where it has one. */
async function keptPortBeside(relayPort: number): Promise<number | undefined> {
  const { stdout } = await verdicts.lab.exec('router', ['ss', '-Hltnp'])
  return stdout.split('\n').flatMap((line) => (line.includes('sluice-relay') ? [Number(/:(\d+)\s/.exec(line)?.[1])] : [])).find((port) => port !== relayPort)
}

/** UDP flows of the relay's, by their sockets towards servers. */
async function udpFlows(): Promise<number> {
  const { stdout } = await verdicts.lab.exec('router', ['ss', '-Huanp', 'state', 'established'])
  return stdout.split('\n').filter((line) => line.includes('sluice-relay')).length
}

describe.each(columns)('%s', (column) => {
  const backend = backendOf(column)
  const startHelper = (): TestHelper => startTestHelper(verdicts.lab, programs, 'router', undefined, column === 'nft without owned tables' ? olderTool(programs.folder, 'nft', 'flags owner') : [])

  // Each in half of the columns; with another seed it may be the other half.
  const [stance, fixed] = Object.entries(stances)[(seed + columns.indexOf(column)) % 2] as [string, Pick<PlanWish, 'keepPort'>]
  test(`any plan reaches any other, ${stance}: seed ${String(seed)}`, async () => {
    console.log(`${column}: SEED=${String(seed)} STEPS=${String(steps)}`)
    const random = randomFrom(seed + columns.indexOf(column))
    const [dealPlan, dealWay] = [dealFrom(Object.entries(wishes), random), dealFrom(Object.entries(ways).filter(([, way]) => fixed.keepPort !== true || way.hold !== false), random)]
    const { lab } = verdicts
    before = await snapshot(lab)
    helper = startHelper()
    await helper.request('hello', { protocol: 1 })
    const first = planOf({ tcp: '8080', udp: '8080', scope: scopes, ...patient, ...fixed, ...ways['waiting, by SOCKS'] }, backend)
    const folder = makeSession(programs, 'changes')
    const { relayPort } = await helper.request('open', { ...first, capture: { folder, payload: true, maxBytesPerFlow: null, maxBytes: null }, threads: 1 })
    const keptPort = await keptPortBeside(relayPort)
    const relayed = [...await begin(tcpEnds), ...await beginByUdp()]
    // A kept port looks like nobody's.
    expect(relayed.map((each) => each.relayed)).toEqual([...tcpEnds.map(([place, , server]) => fixed.keepPort !== true || place !== 'client' || server !== 'server'), ...udpEnds.map(() => true)])
    expect(await udpFlows()).toBeGreaterThanOrEqual(udpEnds.length)
    /** Under each of them somebody begins, whatever the plan makes of that, and lives on as well. */
    const begun = new Set<string>(['waiting, to nobody'])
    let latest = first.plan
    // What rules before the latest may have brought to the relay; there is something of each kind that the first plan takes.
    let carried: Carried | undefined
    let wished: PlanWish = { tcp: '8080' }
    const change = async (wish: PlanWish): Promise<void> => {
      const next = planOf({ ...patient, ...wish, ...fixed }, backend)
      await helper.request('change', next)
      carried = carriedBy(latest, carried)
      latest = next.plan
      wished = wish
    }
    const path: string[] = []
    /** What the record must tell of everybody who asked. */
    const expected = new Map<string, boolean>()
    const judge = async (): Promise<void> => {
      expect(await verdicts.judge(), path.join(' > ')).toEqual(verdicts.meaning(latest, proxyLooks))
      for (const { ends, taken } of verdicts.asked(latest)) expected.set(ends, taken)
    }
    /** Once silence was soon over, flows of UDP may have begun anew. */
    let lives = true
    for (let step = 1; step <= steps; step++) {
      if (random(8) === 0) {
        path.push('drain')
        await helper.request('drain', {})
        expect(new Set(Object.values(await verdicts.judge())), path.join(' > ')).toEqual(new Set(['direct', 'ECONNREFUSED']))
        await helper.request('resume', {})
        path.push('resume')
      } else {
        const [[name, wish], [wayName, way]] = [dealPlan(), dealWay()]
        path.push(`${name}, ${wayName}`)
        await change({ ...wish, ...way, ...(wish.tcp === '' ? {} : { tcp: `${wish.tcp},${String(closedPort)}` }) })
        if (latest.udpIdle.other < patient.udpIdle.other) lives = false
        if (!begun.has(wayName)) relayed.push(...await begin([[begun.size % 2 === 0 ? 'client' : 'router', 'ipv4', 'server']], 9000))
        begun.add(wayName)
      }
      await judge()
      await Promise.all([...relayed, ...direct].map((each, index) => each.say(`step-${String(step)}`, path.join(' > '), lives || index >= relayed.length)))
    }
    // Nobody else was here: what we did ourselves is not taken for a loss.
    expect(helper.events.filter((event) => event.event === 'warning' && event.code === 'rules-restored'), path.join(' > ')).toEqual([])
    // However long they might have been silent when they began, now they may no longer.
    await change({ ...wished, udpIdle: { dns: 1, quic: 1, other: 1 } })
    // As if this plan had been opened and no other (but for what flows still carried may need).
    const fresh = compileRules(latest, facts(), carried)
    const text = backend === 'nft' ? renderNft(fresh, { relayPort, keptPort, owner: false, holds: true, leaseSeconds: 4 }).load : renderIptables(fresh, { relayPort, keptPort, holds: true, family: 'ipv6' }).load
    expect(await ours(backend), path.join(' > ')).toEqual(await ours(backend, ['unshare', '--net', '--'], text))
    await expect.poll(udpFlows, { timeout: 30_000, interval: 100 }).toBe(0)
    await helper.request('drain', {})
    for (const each of relayed) await each.end()
    expect((await helper.event('closed')).failure).toBeUndefined()
    for (const each of direct) await each.say(`after closing ${column}`, path.join(' > '))
    await helper.end()
    expect(await snapshot(lab)).toBe(before)
    const recorded = new Set((await rowsOf(folder)).map(endsOf))
    expect([...expected].filter(([ends, taken]) => recorded.has(ends) !== taken), path.join(' > ')).toEqual([])
  }, 60_000 + 10_000 * steps)

  test('what cannot be changed, or is wrong, changes nothing', async () => {
    before = await snapshot(verdicts.lab)
    helper = startHelper()
    await helper.request('hello', { protocol: 1 })
    const { plan, digest } = planOf({ tcp: '8080' }, backend)
    await expect(helper.request('change', { plan, digest })).rejects.toMatchObject({ code: 'not-open' })
    await helper.request('open', { plan, digest, capture: { folder: makeSession(programs, 'refused'), payload: true, maxBytesPerFlow: null, maxBytes: null }, threads: 1 })
    const open = await ours(backend)
    const refused = async (change: Partial<InterceptionPlan>, code: string): Promise<void> => {
      await expect(helper.request('change', { plan: { ...plan, ...change }, digest })).rejects.toMatchObject({ code })
      expect(await ours(backend)).toEqual(open)
    }
    await refused({ relayPort: 1 }, 'cannot-change')
    await refused({ table: 999 }, 'cannot-change')
    await refused({ marks: { ...plan.marks, local: 1 } }, 'cannot-change')
    await refused({ backend: backend === 'nft' ? 'iptables' : 'nft' }, 'cannot-change')
    await refused({ keepPort: true }, 'cannot-change')
    await refused({ priority: { ...plan.priority, rule: 1 } }, 'cannot-change')
    await refused({ tcp: [{ from: 8081, to: 8081 }] }, 'digest-mismatch')
    await refused({ tcp: [], udp: [] }, 'nothing-to-intercept')
    await refused({ interfaces: ['nosuch0'] }, 'unknown-interface')
    await helper.request('change', { plan, digest })
    expect(await ours(backend)).toEqual(open)
    expect(await verdicts.judge()).toEqual(verdicts.meaning(plan))
    await helper.end()
    await expectClean(verdicts.lab, before, ['prober.mjs', 'peer.mjs', 'haproxy', 'microsocks'])
  })
})
