import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'

import { makePlan, type PlanWish } from '#core/plan/makePlan.ts'
import { backendDifferences } from '#core/rules/backendDifferences.ts'
import { applyRules } from '../rules/applyRules.ts'
import type { AppliedRules } from '../rules/applyRules.ts'
import { startRelay } from '../rules/testRelay.ts'
import type { TestRelay } from '../rules/testRelay.ts'
import { plans, udpPlans } from './plans.ts'
import { makeVerdictLab } from './verdicts.ts'
import type { VerdictLab } from './verdicts.ts'

// One table of plans, each on each backend, judged by packets alone.

let verdicts: VerdictLab
let relay: TestRelay
let rules: AppliedRules | undefined
beforeAll(async () => {
  verdicts = await makeVerdictLab({ udp: true })
  relay = await startRelay(verdicts.lab)
})
afterEach(async () => {
  await rules?.remove()
  rules = undefined
})
afterAll(async () => {
  await relay.stop()
  await verdicts.remove()
})

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  test.each(Object.entries({ ...plans, ...udpPlans }))('%s', async (_name, wish) => {
    const meant = { ...wish, ...(wish.cgroups === undefined ? {} : { cgroups: [verdicts.cgroup] }) }
    rules = await applyRules(verdicts.lab, meant, { backend, relayPort: relay.port, cgroupPrefix: verdicts.cgroupPrefix })
    expect(await verdicts.judge()).toEqual(verdicts.meaning(makePlan(meant)))
  })
  test('without a listener: as the table of differences says, for each kind of flow', async () => {
    const plan: PlanWish = { tcp: '8080', scope: ['local', 'forwarded', 'incoming'] }
    // Nobody listens there.
    rules = await applyRules(verdicts.lab, plan, { backend, relayPort: 9 })
    const meant = verdicts.meaning(makePlan(plan))
    const expected = (name: string): readonly string[] => {
      if (meant[name] === 'direct') return ['direct']
      const scope = /^(?:second )?client /.test(name) ? 'forwarded' : 'local'
      return backendDifferences.flatMap(({ verdicts: allowed }) => (allowed?.scope === scope ? allowed.on[backend] : []))
    }
    // Nobody else gives up so soon: a server may be that slow.
    const judged = await verdicts.judge((name) => (expected(name).includes('silence') ? 3000 : undefined))
    const words: Readonly<Record<string, string>> = { ECONNREFUSED: 'refused', TIMEOUT: 'silence' }
    for (const [name, verdict] of Object.entries(judged)) expect(expected(name), `${name}: ${verdict}`).toContain(words[verdict] ?? verdict)
  })
  test('nothing is open, and everything goes direct', async () => {
    expect(new Set(Object.values(await verdicts.judge()))).toEqual(new Set(['direct']))
  })
})
