import { expect, test } from 'vitest'

import { makePlan } from '#core/plan/makePlan.ts'
import { requireFitting } from '#helper/relayLink.ts'

// The relay takes a line of 64 KiB, 1,024 refused ranges and 128 proxies; told more, it ends.

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
  expect(fits({ tcp: '80', refuse: apart(1, 1000) })).toBe(true)
  expect(fits({ tcp: '80', refuse: apart(1, 1025) })).toBe(false)
  expect(fits({ tcp: '80', refuse: apart(20_001, 700), send: [`${apart(20_001, 700)}=socks5:127.0.0.1:1`] })).toBe(true)
  expect(fits({ tcp: '80', refuse: apart(20_001, 1000), send: [`${apart(20_001, 1000)}=socks5:127.0.0.1:1`] })).toBe(false)
  // Named once a family, so that 64 are the most; a plan has no more.
  expect(fits({ tcp: '80', send: Array.from({ length: 64 }, (_, index) => `${String(index + 1)}=tproxy:3129`) })).toBe(true)
})
