import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'

import { makePlan } from '#core/plan/makePlan.ts'
import { applyRules } from '../rules/applyRules.ts'
import type { AppliedRules } from '../rules/applyRules.ts'
import { startRelay } from '../rules/testRelay.ts'
import type { TestRelay } from '../rules/testRelay.ts'
import { plans } from './plans.ts'
import { makeVerdictLab } from './verdicts.ts'
import type { VerdictLab } from './verdicts.ts'

// One table of plans, each on each backend, judged by packets alone.

let verdicts: VerdictLab
let relay: TestRelay
let rules: AppliedRules | undefined
beforeAll(async () => {
  verdicts = await makeVerdictLab({ udp: false })
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
  test.each(Object.entries(plans))('%s', async (_name, wish) => {
    const meant = { ...wish, ...(wish.cgroups === undefined ? {} : { cgroups: [verdicts.cgroup] }) }
    rules = await applyRules(verdicts.lab, meant, { backend, relayPort: relay.port, cgroupPrefix: verdicts.cgroupPrefix })
    expect(await verdicts.judge()).toEqual(verdicts.meaning(makePlan(meant)))
  })
  test('nothing is open, and everything goes direct', async () => {
    expect(new Set(Object.values(await verdicts.judge()))).toEqual(new Set(['direct']))
  })
})
