import { describe, expect, test } from 'vitest'

import { defaultChoice, planOfChoice } from '#core/plan/gateChoice.ts'
import { editPlan, parsePlanEdit } from '#core/plan/editPlan.ts'
import type { PlanEditWish } from '#core/plan/editPlan.ts'
import { choiceNow } from '#main/choiceNow.ts'

const choice = { ...defaultChoice, users: 'alice', programs: 'web', interfaces: 'veth*' }
const made = planOfChoice(choice, { users: [1000], groups: [], cgroups: ['system.slice/web.service'] })
const now = (wish: PlanEditWish) => choiceNow(choice, made, { plan: editPlan(made, parsePlanEdit(wish)) })

describe('the choice that an open gate goes by', () => {
  test('is the one its plan was made from, word by word', () => {
    expect(now({})).toEqual(choice)
    expect(now({ users: { add: [1000] }, cgroups: { remove: ['other.slice'] } })).toEqual(choice)
  })
  test('says what somebody else changed, in words that mean the same plan', () => {
    const changes: PlanEditWish = { users: { add: [5] }, groups: { add: [7] }, cgroups: { add: ['machine.slice'] }, interfaces: { every: true }, scope: ['local'], hold: false, servers: { add: ['203.0.113.0/24'] } }
    expect(now(changes)).toEqual({ ...choice, users: '5, 1000', groups: '7', programs: '/machine.slice, system.slice/web.service', interfaces: '', scope: { local: true, forwarded: false, incoming: false }, hold: false, servers: '203.0.113.0/24' })
    expect(planOfChoice(now(changes), { users: [5, 1000], groups: [7], cgroups: ['machine.slice', 'system.slice/web.service'] })).toEqual(editPlan(made, parsePlanEdit(changes)))
  })
})
