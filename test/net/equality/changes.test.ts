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
import { labAddresses } from '#test/lab/makeLab.ts'
import { seed } from '#test/support/seed.ts'
import type { Place } from '#test/lab/makeLab.ts'
import { expectClean, makeProgramFolder, makeSession, snapshot, startTestHelper, withoutLease } from '../helper/harness.ts'
import type { TestHelper } from '../helper/harness.ts'
import { plans } from './plans.ts'
import { makeVerdictLab } from './verdicts.ts'
import type { VerdictLab } from './verdicts.ts'

// The same plans in random order, changed while open and drained and resumed in between. SEED=number repeats an order.

const steps = Number(process.env['STEPS'] ?? 16)

let programs: Awaited<ReturnType<typeof makeProgramFolder>>
let verdicts: VerdictLab
let helper: TestHelper
let before: string
beforeAll(async () => {
  programs = await makeProgramFolder()
  verdicts = await makeVerdictLab({ udp: false })
})
afterEach(() => helper.kill())
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

/** A connection that is to outlive every change. */
async function hold(place: Place, family: 'ipv4' | 'ipv6', server: 'server' | 'routerToClient' = 'server') {
  const peer = verdicts.lab.peer(place, 'talk', labAddresses[family][server], '8080')
  const { localPort } = await peer.event(({ event }) => event === 'open')
  const greeting = String((await peer.event(({ event }) => event === 'line'))['line'])
  return {
    relayed: Number(greeting.split(' ')[2]) !== localPort,
    async say(word: string) {
      peer.write(`send ${word}`)
      await peer.event(({ line }) => line === word)
    },
    async end() {
      peer.write('end')
      await peer.event(({ event }) => event === 'close')
    },
  }
}

/** What is of ours in the kernel, chain by chain: the order in which chains were made is no meaning. */
async function ours(backend: Backend, enter: readonly string[] = [], input = ''): Promise<string[]> {
  const load = (text: string): string[] => [...enter, 'sh', '-ec', text]
  if (backend === 'nft') {
    const { stdout } = await verdicts.lab.exec('router', load(`${input === '' ? '' : 'nft -f -; '}nft --stateless list table inet sluice`), { input })
    const blocks = stdout.replace(/^table inet sluice \{.*\n(\tflags owner\n)?/, '').split(/\n(?=\t(?:set|chain) )/)
    // The lease comes and goes; its element is no part of a plan.
    return blocks.map((block) => block.replace(/\n\}?\s*$/, '').trim()).filter((block) => block !== '' && !/^set lease|^#/.test(block)).sort()
  }
  const { restore, save } = iptablesTools(backend, 'ipv6')
  const { stdout } = await verdicts.lab.exec('router', load(`${input === '' ? '' : `${restore} --noflush; `}${save} -t mangle`), { input })
  const lines = withoutLease(stdout).split('\n').filter((line) => /SLUICE/.test(line)).map((line) => line.replace(/ \[\d+:\d+\]$/, ''))
  const chains = new Map<string, string[]>()
  for (const line of lines) {
    const chain = /^(?::|-A )(\S+)/.exec(line)?.[1] ?? ''
    chains.set(chain, [...(chains.get(chain) ?? []), line])
  }
  return [...chains.values()].map((chain) => chain.join('\n')).sort()
}

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  test(`any plan reaches any other: seed ${String(seed)}`, async () => {
    console.log(`${backend}: SEED=${String(seed)} STEPS=${String(steps)}`)
    const random = randomFrom(seed)
    before = await snapshot(verdicts.lab)
    helper = startTestHelper(verdicts.lab, programs)
    const direct = [await hold('client', 'ipv4'), await hold('router', 'ipv6'), await hold('client', 'ipv6', 'routerToClient')]
    await helper.request('hello', { protocol: 1 })
    const first = planOf({ tcp: '8080', scope: scopes }, backend)
    const capture = { folder: makeSession(programs, 'changes'), payload: true, maxBytesPerFlow: null, maxBytes: null }
    const { relayPort } = await helper.request('open', { ...first, capture, threads: 1 })
    const relayed = [await hold('client', 'ipv4'), await hold('client', 'ipv6'), await hold('router', 'ipv4'), await hold('router', 'ipv6'), await hold('client', 'ipv4', 'routerToClient'), await hold('client', 'ipv6', 'routerToClient')]
    expect(relayed.map((each) => each.relayed)).toEqual([true, true, true, true, true, true])
    const wishes = Object.entries(plans)
    let latest = first.plan
    // What rules before the latest may have brought to the relay; there is something of each kind that the first plan takes.
    let carried: Carried | undefined
    const path: string[] = []
    for (let step = 0; step < steps; step++) {
      if (random(5) === 0) {
        path.push('drain')
        await helper.request('drain', {})
        expect(new Set(Object.values(await verdicts.judge())), path.join(' > ')).toEqual(new Set(['direct']))
        await helper.request('resume', {})
        path.push('resume')
      } else {
        const [name, wish] = wishes[random(wishes.length)] as [string, PlanWish]
        path.push(name)
        const next = planOf(wish, backend)
        await helper.request('change', next)
        carried = carriedBy(latest, carried)
        latest = next.plan
      }
      expect(await verdicts.judge(), path.join(' > ')).toEqual(verdicts.meaning(latest))
      for (const each of [...relayed, ...direct]) await each.say(`step-${String(step)}`)
    }
    // Nobody else was here: what we did ourselves is not taken for a loss.
    expect(helper.events.filter((event) => event.event === 'warning' && event.code === 'rules-restored'), path.join(' > ')).toEqual([])
    // As if this plan had been opened and no other (but for what flows still carried may need).
    const fresh = compileRules(latest, facts(), carried)
    const text = backend === 'nft' ? renderNft(fresh, { relayPort, owner: false, holds: true, leaseSeconds: 4 }).load : renderIptables(fresh, { relayPort, holds: true, family: 'ipv6' }).load
    expect(await ours(backend), path.join(' > ')).toEqual(await ours(backend, ['unshare', '--net', '--'], text))
    await helper.request('drain', {})
    for (const each of relayed) await each.end()
    expect((await helper.event('closed')).failure).toBeUndefined()
    for (const each of direct) {
      await each.say('after closing')
      await each.end()
    }
    await helper.end()
    expect(await snapshot(verdicts.lab)).toBe(before)
  }, 180_000)

  test('what cannot be changed, or is wrong, changes nothing', async () => {
    before = await snapshot(verdicts.lab)
    helper = startTestHelper(verdicts.lab, programs)
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
    await refused({ tcp: [{ from: 8081, to: 8081 }] }, 'digest-mismatch')
    await refused({ tcp: [], udp: [] }, 'nothing-to-intercept')
    await refused({ interfaces: ['nosuch0'] }, 'unknown-interface')
    await helper.request('change', { plan, digest })
    expect(await ours(backend)).toEqual(open)
    expect(await verdicts.judge()).toEqual(verdicts.meaning(plan))
    await helper.end()
    await expectClean(verdicts.lab, before, ['prober.mjs', 'peer.mjs'])
  })
})
