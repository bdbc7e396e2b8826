import { expect, test } from 'vitest'

import { makePlan } from '#core/plan/makePlan.ts'
import { requireFitting } from '#helper/relayLink.ts'

// The relay takes a line of 512 KiB, 4,096 refused ranges and 128 proxies; told more, it ends. A plan has no more than fits.

const apart = (from: number, count: number): string => Array.from({ length: count }, (_, index) => String(from + 2 * index)).join(',')
const fits = (wish: Parameters<typeof makePlan>[0]): boolean => {
  const plan = makePlan(wish)
  try {
    requireFitting(plan.handOver, plan)
    return true
  } catch (error) {
    expect(error).toMatchObject({ code: 'bad-plan' })
    return false
  }
}

test('what the relay can be told fits, and what would be its end does not', () => {
  expect(fits({ tcp: '80', refuse: apart(1, 4096) })).toBe(true)
  const handed = Array.from({ length: 4 }, (_, index) => `${apart(20_001 + 2048 * index, 1024)}=tproxy:${String(60_001 + index)}`)
  expect(fits({ tcp: '', refuse: apart(20_001, 4096), send: handed })).toBe(true)
  const plan = makePlan({ tcp: '80', refuse: apart(20_001, 4096) })
  expect(() => requireFitting(plan.handOver, { ...plan, refuse: [...plan.refuse, { from: 1, to: 1 }] })).toThrow('too many ports')
  // Named once a family, so that 64 are the most; a plan has no more.
  expect(fits({ tcp: '80', send: Array.from({ length: 64 }, (_, index) => `${String(index + 1)}=tproxy:3129`) })).toBe(true)
})
