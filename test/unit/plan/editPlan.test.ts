import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { editPlan, parsePlanEdit } from '#core/plan/editPlan.ts'
import type { PlanEditWish } from '#core/plan/editPlan.ts'
import { formatPlanPorts } from '#core/plan/formatPlanPorts.ts'
import { parseHandOver } from '#core/plan/handOver.ts'
import { makePlan } from '#core/plan/makePlan.ts'
import { holdsCidr, parseCidr } from '#core/plan/parseCidr.ts'
import { parseDuration } from '#core/plan/parseDuration.ts'
import { parsePlan } from '#core/plan/parsePlan.ts'
import { parsePorts } from '#core/plan/parsePorts.ts'
import { parsePortWords } from '#core/plan/parsePortWords.ts'
import { comparePlans, describeDifference, isSamePlan } from '#core/plan/planDifference.ts'
import type { PortRange } from '#core/plan/portRange.ts'
import { commonPorts, withoutPorts } from '#core/plan/portSets.ts'
import { nextEnd, overdue, timedWithin, timePorts } from '#core/plan/timedPorts.ts'
import { withoutNetworks } from '#core/plan/withoutNetworks.ts'

const edit = (wish: PlanEditWish) => parsePlanEdit(JSON.parse(JSON.stringify(wish)))
const plan = makePlan({ tcp: '80,8000-8100', udp: '53', exclude: ['203.0.113.0/24'] })

describe('sets of ports', () => {
  const ranges = fc.array(fc.tuple(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 0, max: 9 })).map(([from, more]): PortRange => ({ from, to: from + more })), { maxLength: 8 })
  const members = (of: readonly PortRange[]): number[] => [...new Set(of.flatMap(({ from, to }) => Array.from({ length: to - from + 1 }, (_, index) => from + index)))].sort((a, b) => a - b)
  test('are cut and met as sets are', () => {
    fc.assert(fc.property(ranges, ranges, (a, b) => {
      expect(members(withoutPorts(a, b))).toEqual(members(a).filter((port) => !members(b).includes(port)))
      expect(members(commonPorts(a, b))).toEqual(members(a).filter((port) => members(b).includes(port)))
      // One form for one set.
      expect(withoutPorts(a, b)).toEqual(withoutPorts(withoutPorts(a, b), []))
    }))
  })
})

describe('networks', () => {
  test('a part goes, the rest stays, in both families', () => {
    expect(withoutNetworks(['203.0.113.0/24'], ['203.0.113.0/25'])).toEqual(['203.0.113.128/25'])
    expect(withoutNetworks(['203.0.113.0/29', '2001:db8::/32'], ['203.0.113.5'])).toEqual(['203.0.113.0/30', '203.0.113.4/32', '203.0.113.6/31', '2001:db8::/32'])
    expect(withoutNetworks(['2001:db8::/32'], ['2001:db8:8000::/33'])).toEqual(['2001:db8::/33'])
    expect(withoutNetworks(['203.0.113.0/24'], ['0.0.0.0/0'])).toEqual([])
    expect(withoutNetworks(['203.0.113.0/24'], ['198.51.100.0/24'])).toEqual(['203.0.113.0/24'])
    expect(() => withoutNetworks([], ['nonsense'])).toThrow(expect.objectContaining({ code: 'bad-cidr' }))
  })
  test('what is left has every address but those', () => {
    const address = fc.tuple(fc.constantFrom('203.0.113.', '198.51.100.'), fc.nat(255)).map(([begin, end]) => `${begin}${String(end)}`)
    const network = fc.tuple(address, fc.integer({ min: 20, max: 32 })).map(([at, length]) => `${at}/${String(length)}`)
    fc.assert(fc.property(fc.array(network, { maxLength: 5 }), fc.array(network, { maxLength: 5 }), address, (networks, cut, at) => {
      const inside = (of: readonly string[]): boolean => of.some((each) => holdsCidr(parseCidr(each), parseCidr(at)))
      expect(inside(withoutNetworks(networks, cut))).toBe(inside(networks) && !inside(cut))
    }))
  })
})

describe('an edit', () => {
  test('adds and takes away', () => {
    const after = editPlan(plan, edit({ tcp: { add: parsePorts('443'), remove: parsePorts('80,8050') }, udp: { add: parsePorts('443') }, exclude: { add: ['2001:db8::/32'], remove: ['203.0.113.0/25'] } }))
    expect(formatPlanPorts(after)).toBe('tcp 443,8000-8049,8051-8100 udp 53,443')
    expect(after.exclude).toEqual(['203.0.113.128/25', '2001:db8::/32'])
    expect(describeDifference(comparePlans(plan, after))).toEqual([
      'tcp 443 added', 'udp 443 added', 'tcp 80,8050 removed', 'servers left alone as well: 203.0.113.128/25, 2001:db8::/32', 'servers no longer left alone: 203.0.113.0/24',
    ])
  })
  test('twice is once, and nothing is nothing', () => {
    const once = edit({ tcp: { add: parsePorts('443'), remove: parsePorts('80') } })
    const after = editPlan(plan, once)
    expect(editPlan(after, once)).toEqual(after)
    expect(editPlan(plan, edit({}))).toEqual(plan)
    expect(isSamePlan(comparePlans(plan, editPlan(plan, edit({ tcp: { add: parsePorts('80') } }))))).toBe(true)
  })
  test('what is removed and added is there', () => {
    expect(formatPlanPorts(editPlan(plan, edit({ tcp: { remove: parsePorts('1-65535'), add: parsePorts('80') } })))).toBe('tcp 80 udp 53')
  })
  test('leaves something to intercept', () => {
    const all = parsePorts('1-65535')
    expect(() => editPlan(plan, edit({ tcp: { remove: all }, udp: { remove: all } }))).toThrow(expect.objectContaining({ code: 'nothing-to-intercept' }))
    const narrow = makePlan({ tcp: '80', servers: ['203.0.113.0/24'] })
    expect(() => editPlan(narrow, edit({ servers: { remove: ['0.0.0.0/0'] } }))).toThrow(expect.objectContaining({ code: 'nothing-to-intercept' }))
    expect(editPlan(narrow, edit({ servers: { remove: ['203.0.113.0/24'], add: ['198.51.100.0/24'] } })).servers).toEqual(['198.51.100.0/24'])
  })
  test('takes a port from its proxy or refusal as well', () => {
    const bound = makePlan({ tcp: '80,443', send: ['80=socks5:127.0.0.1:1080'], refuse: '443' })
    expect(editPlan(bound, edit({ tcp: { remove: parsePorts('80') } }))).toEqual(makePlan({ tcp: '443', refuse: '443' }))
    expect(editPlan(bound, edit({ udp: { remove: parsePorts('443') } }))).toEqual(makePlan({ tcp: '80,443', send: ['80=socks5:127.0.0.1:1080'] }))
    expect(formatPlanPorts(editPlan(bound, edit({ tcp: { remove: parsePorts('443') } })))).toBe('tcp 80 udp 443')
  })
  test('sends to proxies, refuses, and lets both be', () => {
    const other = parseHandOver('80-81=socks5:127.0.0.1:1081')
    const bound = makePlan({ tcp: '80,443', send: ['80,90=socks5:127.0.0.1:1080'], refuse: '443' })
    const sent = editPlan(bound, edit({ send: { add: [other] }, refuse: { add: parsePorts('53'), remove: parsePorts('443') }, udpIdle: { dns: 3 }, hold: false }))
    expect(sent).toEqual(makePlan({ tcp: '80,443', send: ['90=socks5:127.0.0.1:1080', '80-81=socks5:127.0.0.1:1081'], udp: '443', refuse: '53', udpIdle: { dns: 3 }, hold: false }))
    expect(describeDifference(comparePlans(bound, sent)).slice(-4)).toEqual(['what of UDP is refused changed', 'how long UDP may be silent changed', 'whether connections wait for their server changed', 'what is sent to a proxy changed'])
    expect(editPlan(sent, edit({ send: { remove: parsePorts('1-85') } })).handOver).toEqual([parseHandOver('90=socks5:127.0.0.1:1080')])
  })
  test('chooses whom it concerns, and every one again only when told so', () => {
    const some = makePlan({ tcp: '80', users: [1000], cgroups: ['a.slice/x.service'], interfaces: ['veth*'] })
    const after = editPlan(some, edit({ users: { add: [1001], remove: [1000] }, groups: { add: [5] }, cgroups: { every: true }, interfaces: { add: ['br0'] }, scope: ['local'] }))
    expect(after).toEqual(makePlan({ tcp: '80', users: [1001], groups: [5], interfaces: ['veth*', 'br0'], scope: ['local'] }))
    expect(describeDifference(comparePlans(some, after))).toEqual(['interfaces included as well: br0', 'users included as well: 1001', 'users no longer included: 1000', 'groups included as well: 5', 'every cgroup included', 'whose traffic is taken changed'])
    expect(isSamePlan(comparePlans(some, editPlan(some, edit({ users: { add: [1000], remove: [7] }, groups: { every: true } }))))).toBe(true)
    for (const list of [{ users: { remove: [1000] } }, { cgroups: { remove: ['a.slice/x.service'] } }, { interfaces: { remove: ['veth*'] } }]) {
      expect(() => editPlan(some, edit(list))).toThrow(expect.objectContaining({ code: 'nothing-to-intercept' }))
    }
    // Removed from nobody in particular it stays everybody.
    expect(editPlan(plan, edit({ users: { remove: [1000] } }))).toEqual(plan)
    expect(() => editPlan(plan, edit({ interfaces: { add: ['lo'] } }))).toThrow(expect.objectContaining({ code: 'bad-interface' }))
  })
  test.each([null, 7, { tcp: 1 }, { tcp: { add: [{ from: 0, to: 1 }] } }, { tcp: { add: [], more: 1 } }, { marks: {} }, { users: { add: ['root'] } }, { users: { every: 1 } }, { scope: [] }, { scope: ['all'] }, { exclude: { add: ['x'.repeat(65)] } }])('%j is none', (input) => {
    expect(() => parsePlanEdit(input)).toThrow(expect.objectContaining({ code: 'bad-plan' }))
  })
  test('any edit of a plan gives a plan that is canonical', () => {
    const port = fc.tuple(fc.integer({ min: 1, max: 65_000 }), fc.nat(500)).map(([from, more]): PortRange => ({ from, to: from + more }))
    const side = fc.record({ add: fc.array(port, { maxLength: 5 }), remove: fc.array(port, { maxLength: 5 }) })
    fc.assert(fc.property(side, side, (tcp, udp) => {
      const wish = edit({ tcp, udp })
      try {
        const after = editPlan(plan, wish)
        expect(parsePlan(after)).toEqual(after)
        expect(editPlan(after, wish)).toEqual(after)
      } catch (error) {
        expect(error).toMatchObject({ code: 'nothing-to-intercept' })
      }
    }))
  })
})

describe('ports with an end', () => {
  const add = (ports: string) => edit({ tcp: { add: parsePorts(ports) } })
  test('only what was not there without one has one', () => {
    const first = timePorts([], plan, add('80,443'), 1000)
    expect(first).toEqual([{ transport: 'tcp', ports: [{ from: 443, to: 443 }], until: 1000 }])
    const then = editPlan(plan, add('80,443'))
    // Another end, an earlier one too; and none at all.
    expect(timePorts(first, then, add('443'), 500)).toMatchObject([{ until: 500 }])
    expect(timePorts(first, then, add('443'), undefined)).toEqual([])
    expect(timePorts(first, then, edit({ tcp: { remove: parsePorts('443') } }), undefined)).toEqual([])
    // Removed and added again is new.
    expect(timePorts([], plan, edit({ tcp: { remove: parsePorts('80'), add: parsePorts('80') } }), 9)).toMatchObject([{ ports: [{ from: 80, to: 80 }], until: 9 }])
  })
  test('the next first; what is overdue is an edit', () => {
    const timed = [...timePorts([], plan, edit({ udp: { add: parsePorts('443') } }), 100), ...timePorts([], plan, add('443-445'), 200)]
    expect(nextEnd(timed)).toBe(100)
    expect(overdue(timed, 99)).toEqual(edit({}))
    expect(overdue(timed, 100)).toEqual(edit({ udp: { remove: parsePorts('443') } }))
    expect(overdue(timed, 200)).toEqual(edit({ tcp: { remove: parsePorts('443-445') }, udp: { remove: parsePorts('443') } }))
    expect(timedWithin(timed, makePlan({ tcp: '444' }))).toEqual([{ transport: 'tcp', ports: parsePorts('444'), until: 200 }])
    expect(nextEnd([])).toBeUndefined()
  })
})

test('ports of both transports in one list', () => {
  expect(parsePortWords('443, 8443/udp,5000-5100/TCP')).toEqual({ tcp: parsePorts('443,5000-5100'), udp: parsePorts('8443') })
  expect(parsePortWords('53', 'udp')).toEqual({ tcp: [], udp: parsePorts('53') })
  for (const text of ['', '/udp', '53/sctp', '80,,81', '0', '80/udp/tcp', 'x']) expect(() => parsePortWords(text), text).toThrow(expect.objectContaining({ code: 'bad-ports' }))
})

test('durations', () => {
  expect(['200ms', '30s', '30', '1.5h', '1d'].map(parseDuration)).toEqual([200, 30_000, 30_000, 5_400_000, 86_400_000])
  for (const text of ['', '0', '-1s', '1w', '9999d', 's', '1e3']) expect(parseDuration(text)).toBeUndefined()
})
