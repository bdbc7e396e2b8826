import { mkdirSync, rmdirSync } from 'node:fs'

import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'

import { makePlan } from '#core/plan/makePlan.ts'
import type { Backend, InterceptionPlan } from '#core/plan/plan.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import { digestRules } from '#probe/digestRules.ts'
import { labAddresses } from '#test/lab/makeLab.ts'
import { longestPlan } from '#test/support/longestPlan.ts'
import { makeProgramFolder, makeSession, snapshot, startTestHelper } from '../helper/harness.ts'
import type { TestHelper } from '../helper/harness.ts'
import { makeVerdictLab, second } from './verdicts.ts'
import type { VerdictLab } from './verdicts.ts'

// As much of everything as a plan may have: every backend takes it at once, means the same by it, and leaves nothing.

let programs: Awaited<ReturnType<typeof makeProgramFolder>>
let verdicts: VerdictLab
let helper: TestHelper
let cgroups: string[]
const folderOf = (cgroup: string): string => `/sys/fs/cgroup/${verdicts.cgroupPrefix === '' ? '' : `${verdicts.cgroupPrefix}/`}${cgroup}`
beforeAll(async () => {
  programs = await makeProgramFolder()
  verdicts = await makeVerdictLab({ udp: true })
  cgroups = Array.from({ length: 63 }, (_, index) => `${verdicts.cgroup}-${String(index)}`)
  for (const cgroup of cgroups) mkdirSync(folderOf(cgroup))
})
afterEach(() => helper.kill())
afterAll(async () => {
  for (const cgroup of cgroups) rmdirSync(folderOf(cgroup))
  await verdicts.remove()
  programs.remove()
})

/** Each list leaves out somebody whom no other does: the second client and server by the excluding ones of IPv4, and by the including ones of IPv6. */
function plansFor(backend: Backend): InterceptionPlan[] {
  const { ipv4, ipv6 } = labAddresses
  const wish = {
    ...longestPlan({
      exclude: [second.server.ipv4],
      servers: [ipv4.server, second.server.ipv4, ipv6.server],
      excludeSources: [second.client.ipv4],
      sources: [ipv4.client, second.client.ipv4, ipv6.client, ipv4.routerToServer, ipv6.routerToServer],
      users: [0, 4711],
      groups: [0, 4720],
      interfaces: ['cl0'],
      cgroups: [verdicts.cgroup, ...cgroups],
    }),
    backend,
  }
  // Without cgroups it is users and groups alone that tell this computer's programs apart.
  return [makePlan(wish), makePlan({ ...wish, cgroups: [] })]
}

test.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', async (backend) => {
  const before = await snapshot(verdicts.lab)
  helper = startTestHelper(verdicts.lab, programs)
  await helper.request('hello', { protocol: 1 })
  const [first, next] = plansFor(backend).map((plan) => ({ plan, digest: digestRules(compileRules(plan, { tools: [], ipv6: true, lenientLo: true, interfaces: ['lo', 'cl0', 'sv0'], cgroupPrefix: verdicts.cgroupPrefix })) }))
  if (first === undefined || next === undefined) throw new Error('there are two')
  await helper.request('open', { ...first, capture: { folder: makeSession(programs, 'longest'), payload: true, maxBytesPerFlow: null, maxBytes: null }, threads: 1 })
  expect(await verdicts.judge()).toEqual(verdicts.meaning(first.plan))
  await helper.request('change', next)
  expect(await verdicts.judge()).toEqual(verdicts.meaning(next.plan))
  // A computer that is busy for seconds has its guard replaced, and says so.
  expect(helper.events.flatMap((event) => (event.event === 'warning' && event.code !== 'guard-replaced' ? [event.message] : []))).toEqual([])
  await helper.end()
  expect(await snapshot(verdicts.lab)).toBe(before)
}, 120_000)
