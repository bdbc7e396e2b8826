import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { Failure } from '#core/contract/failure.ts'
import { describePlan } from '#core/plan/describePlan.ts'
import { checkChange } from '#core/plan/checkChange.ts'
import { parsePriority } from '#core/plan/parseMarks.ts'
import { makePlan } from '#core/plan/makePlan.ts'
import { holdsCidr, parseCidr } from '#core/plan/parseCidr.ts'
import { parsePlan } from '#core/plan/parsePlan.ts'
import { defaultMarks, scopes } from '#core/plan/plan.ts'

const good = makePlan({ tcp: '80,443' })

function codeOf(act: () => unknown): string {
  try {
    act()
  } catch (error) {
    return error instanceof Failure ? error.code : `not a failure: ${String(error)}`
  }
  return 'none'
}

describe('makePlan', () => {
  test('fills in everything, both scopes included', () => {
    expect(good).toEqual({
      version: 1, tcp: [{ from: 80, to: 80 }, { from: 443, to: 443 }], udp: [], refuse: [], udpIdle: { dns: 10, quic: 60, other: 60 }, hold: true, keepPort: false, handOver: [], scope: ['local', 'forwarded'], interfaces: [], sources: [], excludeSources: [], servers: [], users: [], groups: [], cgroups: [], exclude: [],
      backend: 'auto', relayPort: 50080, marks: defaultMarks, table: 7701, priority: { prerouting: 50, output: -150, rule: 0 },
    })
  })

  test('is canonical', () => {
    expect(
      makePlan({
        tcp: '81,80', scope: ['forwarded', 'local'], interfaces: ['veth12', 'eth0', 'veth*', 'eth0'], users: [5, 0, 5], cgroups: ['/b/', 'a/c', 'a', '/sys/fs/cgroup/user.slice'],
        exclude: ['10.1.2.3/8', '10.9.9.9', '2001:DB8:0:0::/32', '::ffff:192.0.2.1'],
        sources: ['198.51.100.9/24', '198.51.100.7'], excludeSources: ['::1'], servers: ['203.0.113.1'], groups: [7, 7, 3],
      }),
    ).toMatchObject({
      tcp: [{ from: 80, to: 81 }], scope: ['local', 'forwarded'], interfaces: ['eth0', 'veth*'], users: [0, 5], cgroups: ['a', 'b', 'user.slice'],
      exclude: ['10.0.0.0/8', '192.0.2.1/32', '2001:db8::/32'],
      sources: ['198.51.100.0/24'], excludeSources: ['::1/128'], servers: ['203.0.113.1/32'], groups: [3, 7],
    })
  })

  test.each([
    ['nothing-to-intercept', { tcp: ' ' }],
    ['nothing-to-intercept', { tcp: '', udp: ' ', refuse: '' }],
    ['bad-ports', { tcp: '80', refuse: '53-' }],
    ['bad-plan', { tcp: '80', udpIdle: { dns: 0 } }],
    ['bad-plan', { tcp: '80', udpIdle: { quic: 86_401 } }],
    ['bad-plan', { tcp: '80', udpIdle: { other: 1.5 } }],
    ['bad-ports', { tcp: '80,x' }],
    ['bad-ports', { tcp: '80', udp: 'x' }],
    ['bad-user', { tcp: '80', users: [-1] }],
    ['bad-user', { tcp: '80', users: [1.5] }],
    ['bad-user', { tcp: '80', groups: [-1] }],
    ['bad-cidr', { tcp: '80', sources: ['x'] }],
    ['bad-cidr', { tcp: '80', servers: ['10.0.0.0/33'] }],
    ['bad-cidr', { tcp: '80', excludeSources: ['1'.repeat(65)] }],
    ['bad-user', { tcp: '80', users: [0xffff_ffff] }],
    ['bad-plan', { tcp: '80', scope: [] }],
    ['bad-plan', { tcp: '80', relayPort: 0 }],
  ] as const)('%s: %j', (code, wish) => {
    expect(codeOf(() => makePlan(wish))).toBe(code)
  })

  test.each(['lo', '', '*', '-eth0', 'a b', 'a/b', 'a"b', "a'b", 'eth0;', 'eth+', 'a\nb', 'a\0b', 'éth0', '..', 'x'.repeat(16), 've*th', 'a{b', '$x'])('interface %j is refused', (name) => {
    expect(codeOf(() => makePlan({ tcp: '80', interfaces: [name] }))).toBe('bad-interface')
  })
  test.each(['eth0', 'enp0s31f6', 'br-0123456789ab', 'eth0.100', 'wg_0', 'veth*', 'docker0'])('interface %j is taken', (name) => {
    expect(makePlan({ tcp: '80', interfaces: [name] }).interfaces).toEqual([name])
  })
  test.each(['', '/', 'a/../b', '.', 'a//b', 'a b', 'a"b', 'a\nb', 'a/./b', '../a', `a/${'x'.repeat(256)}`, 'a;b', 'a{b}'])('cgroup %j is refused', (path) => {
    expect(codeOf(() => makePlan({ tcp: '80', cgroups: [path] }))).toBe('bad-cgroup')
  })
  test('a cgroup as systemd names it is taken', () => {
    const path = 'user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome\\x2dterminal-12.scope'
    expect(makePlan({ tcp: '80', cgroups: [path] }).cgroups).toEqual([path])
  })
  test.each(['', '10.0.0.0/33', '2001:db8::/129', '10.0.0', '010.0.0.1', '0x0a.0.0.1', '10', 'fe80::1%eth0', 'example.org', '10.0.0.0/-1', '10.0.0.0/8/8', '::1::', '1.2.3.4 } drop', '10.0.0.0/'])('network %j is refused', (text) => {
    expect(codeOf(() => makePlan({ tcp: '80', exclude: [text] }))).toBe('bad-cidr')
  })
})

describe('parsePlan', () => {
  test.each([null, undefined, 7, 'x', [], {}, { ...good, version: 2 }, { ...good, extra: 1 }, { ...good, tcp: [{ from: 80 }] }, { ...good, tcp: [{ from: 80, to: 1e9 }] }, { ...good, backend: 'pf' }, { ...good, table: 254 }, { ...good, scope: ['all'] }, { ...good, tcp: Array.from({ length: 4097 }, () => ({ from: 1, to: 1 })) }])('shape %#', (input) => {
    expect(codeOf(() => parsePlan(input))).toBe('bad-plan')
  })
  test('a port cannot be kept without holding', () => expect(codeOf(() => makePlan({ tcp: '80', keepPort: true, hold: false }))).toBe('bad-plan'))
  test('ranges that run backwards', () => expect(codeOf(() => parsePlan({ ...good, tcp: [{ from: 90, to: 80 }] }))).toBe('bad-ports'))
  test.each([
    { ...defaultMarks, local: defaultMarks.forwarded },
    { ...defaultMarks, local: 3 },
    { ...defaultMarks, uplink: 0xffff_ffff },
    { ...defaultMarks, uplink: 0 },
  ])('marks %j', (marks) => expect(codeOf(() => parsePlan({ ...good, marks }))).toBe('bad-plan'))

  const anyRange = fc.tuple(fc.integer({ min: 1, max: 65535 }), fc.nat(500)).map(([from, more]) => ({ from, to: Math.min(65535, from + more) }))
  const anyPlan = fc.record({
    version: fc.constant(1),
    tcp: fc.array(anyRange, { minLength: 1, maxLength: 20 }),
    udp: fc.array(anyRange, { maxLength: 20 }),
    refuse: fc.array(anyRange, { maxLength: 5 }),
    udpIdle: fc.record({ dns: fc.integer({ min: 1, max: 86_400 }), quic: fc.integer({ min: 1, max: 86_400 }), other: fc.integer({ min: 1, max: 86_400 }) }),
    scope: fc.uniqueArray(fc.constantFrom(...scopes), { minLength: 1 }),
    interfaces: fc.array(fc.constantFrom('eth0', 'eth1', 'eth*', 'e*', 'wg0', 'br-1'), { maxLength: 6 }),
    users: fc.array(fc.nat(3000), { maxLength: 10 }),
    cgroups: fc.array(fc.array(fc.constantFrom('a', 'b.slice', 'c@1.service', 'ab'), { minLength: 1, maxLength: 3 }).map((parts) => `/${parts.join('/')}`), { maxLength: 6 }),
    exclude: fc.array(fc.oneof(fc.tuple(fc.ipV4(), fc.integer({ min: 0, max: 32 })), fc.tuple(fc.ipV6(), fc.integer({ min: 0, max: 128 }))).map(([address, length]) => `${address}/${length}`), { maxLength: 12 }),
    backend: fc.constantFrom('auto', 'nft', 'iptables', 'iptables-legacy'),
    relayPort: fc.integer({ min: 1, max: 65535 }),
    marks: fc.uniqueArray(fc.integer({ min: 0, max: 31 }), { minLength: 3, maxLength: 3 }).map(([a = 0, b = 0, c = 0]) => ({ forwarded: 2 ** a, local: 2 ** b, uplink: 2 ** c })),
    table: fc.integer({ min: 256, max: 0x7fff_ffff }),
  })

  test('parsing again changes nothing', () => {
    fc.assert(
      fc.property(anyPlan, (input) => {
        const plan = parsePlan(input)
        expect(parsePlan(JSON.parse(JSON.stringify(plan)))).toEqual(plan)
      }),
    )
  })

  test('equal wishes in another order have equal JSON', () => {
    fc.assert(
      fc.property(anyPlan, (input) => {
        const turned = { ...input, tcp: input.tcp.toReversed(), udp: input.udp.toReversed(), refuse: input.refuse.toReversed(), scope: input.scope.toReversed(), interfaces: input.interfaces.toReversed(), users: input.users.toReversed(), cgroups: input.cgroups.toReversed(), exclude: input.exclude.toReversed() }
        expect(JSON.stringify(parsePlan(turned))).toBe(JSON.stringify(parsePlan(input)))
      }),
    )
  })

  test('what is refused is taken too', () => {
    fc.assert(
      fc.property(anyPlan, (input) => {
        const plan = parsePlan(input)
        for (const { from, to } of [...input.udp, ...input.refuse]) expect(plan.udp.some((range) => range.from <= from && range.to >= to)).toBe(true)
        for (const { from, to } of plan.refuse) expect(plan.udp.some((range) => range.from <= from && range.to >= to)).toBe(true)
      }),
    )
  })

  test('a plan of before UDP is read with its defaults', () => {
    const { refuse: _refuse, udpIdle: _udpIdle, ...old } = good
    expect(parsePlan(old)).toEqual(good)
  })

  test('exclusions cover what was asked and never overlap', () => {
    fc.assert(
      fc.property(anyPlan, (input) => {
        const kept = parsePlan(input).exclude.map(parseCidr)
        for (const text of input.exclude) expect(kept.some((cidr) => holdsCidr(cidr, parseCidr(text)))).toBe(true)
        kept.forEach((a, i) => kept.forEach((b, j) => i === j || expect(holdsCidr(a, b)).toBe(false)))
      }),
    )
  })

  test('junk is a failure and nothing else', () => {
    fc.assert(
      fc.property(fc.oneof(fc.anything(), fc.record({ ...Object.fromEntries(Object.keys(good).map((key) => [key, fc.anything()])) })), (input) => {
        expect(codeOf(() => parsePlan(input))).not.toMatch(/^not a failure|^none$/)
      }),
    )
  })
})

describe('describePlan', () => {
  test('everything', () => {
    expect(describePlan(good)).toEqual([
      'TCP ports 80, 443 will be intercepted.',
      'Programs on this computer are included.',
      'Devices, containers and virtual machines routed through this computer are included, whichever interface they come in by.',
      'What others say to services of this computer itself is left alone.',
      'For programs here IPv6’s link-local addresses (fe80::/10) are like any other; IPv4’s (169.254.0.0/16) and multicast are left alone.',
      'What a program binds to one interface (VPN clients do, and curl --interface NAME) goes by as if the gate were closed.',
      'Connections that exist already are not touched; closing the gate cuts none.',
    ])
  })
  test('UDP', () => {
    expect(describePlan(makePlan({ tcp: '80,443', udp: '53', refuse: '443', scope: ['local'] }))).toEqual([
      'TCP ports 80, 443 and UDP ports 53, 443 will be intercepted.',
      'What comes for UDP port 443 is refused (“port unreachable”), so that programs that can, fall back to TCP.',
      'Programs on this computer are included.',
      'Devices, containers and virtual machines routed through this computer are left alone.',
      'What others say to services of this computer itself is left alone.',
      'A UDP flow is over after 10 seconds of silence (DNS), 60 seconds (QUIC) or 60 seconds (others).',
      'For programs here IPv6’s link-local addresses (fe80::/10) are like any other; IPv4’s (169.254.0.0/16) and multicast are left alone.',
      'What a program binds to one interface (VPN clients do, and curl --interface NAME) goes by as if the gate were closed.',
      'Connections that exist already are not touched; closing the gate cuts none.',
    ])
    expect(describePlan(makePlan({ tcp: '', udp: '53', udpIdle: { dns: 1 } }))[0]).toBe('UDP port 53 will be intercepted.')
  })
  test('services of this computer', () => {
    expect(describePlan(makePlan({ tcp: '80', scope: ['incoming'], interfaces: ['br0'] })).slice(1, 5)).toEqual([
      'Programs on this computer are left alone.',
      'Devices, containers and virtual machines routed through this computer are left alone.',
      'What others say to services of this computer itself is included when it comes in by br0. Services see their clients’ addresses (where somebody masquerades those, as Docker does for containers, this computer’s), but other ports; one that is bound to a single interface cannot be reached meanwhile.',
      'There a connection is accepted before its service has answered, so a closed port looks open for a moment.',
    ])
  })
  test('narrowed', () => {
    expect(describePlan(makePlan({ tcp: '80', scope: ['local'], users: [1000, 0], cgroups: ['a'], exclude: ['10.0.0.0/8', '192.0.2.0/24'] }))).toEqual([
      'TCP port 80 will be intercepted.',
      'Programs on this computer that run as user 0 or 1000 are included when they run in the cgroup a.',
      'Devices, containers and virtual machines routed through this computer are left alone.',
      'What others say to services of this computer itself is left alone.',
      'Connections to servers in 10.0.0.0/8 or 192.0.2.0/24 are left alone.',
      'For programs here IPv6’s link-local addresses (fe80::/10) are like any other; IPv4’s (169.254.0.0/16) and multicast are left alone.',
      'What a program binds to one interface (VPN clients do, and curl --interface NAME) goes by as if the gate were closed.',
      'Connections that exist already are not touched; closing the gate cuts none.',
    ])
  })
})

test('lists that come together in one stay within its bound, so that what is made of a plan is one', () => {
  const every = (from: number, count: number) => Array.from({ length: count }, (_, index) => ({ from: from + 2 * index, to: from + 2 * index }))
  const plan = makePlan({ tcp: '80' })
  const handOver = [{ ports: every(20_000, 1024), to: { kind: 'tproxy' as const, port: 3129 } }]
  const longest = parsePlan({ ...plan, tcp: every(1, 3072), handOver })
  expect(longest.tcp).toHaveLength(4096)
  expect(parsePlan(longest)).toEqual(longest)
  expect(codeOf(() => parsePlan({ ...plan, tcp: every(1, 3073), handOver }))).toBe('bad-plan')
  expect(codeOf(() => parsePlan({ ...plan, udp: every(1, 4096), refuse: every(10_000, 1) }))).toBe('bad-plan')
  // Within wider ranges of the plan: these still have to be told to the relay one by one.
  expect(codeOf(() => parsePlan({ ...plan, tcp: [{ from: 1, to: 65_535 }], handOver: [0, 1, 2, 3, 4].map((part) => ({ ports: every(1 + 2048 * part, 1000), to: { kind: 'tproxy' as const, port: 3129 } })) }))).toBe('bad-plan')
})

describe('priorities', () => {
  test('from the left as many as are meant', () => {
    expect(parsePriority('-120')).toEqual({ prerouting: -120 })
    expect(parsePriority(' -120 , -160 ')).toEqual({ prerouting: -120, output: -160 })
    expect(makePlan({ tcp: '80', priority: parsePriority('50,-150,100') }).priority).toEqual({ prerouting: 50, output: -150, rule: 100 })
  })
  test.each(['', 'x', '-200', '50,-200', '1,2,-1', '1,2,32766', '1,2,3,4', '1,,3', '1e3', '10001', '--1'])('%j is none', (text) => expect(codeOf(() => parsePriority(text))).toBe('bad-plan'))
  test('chains of iptables stand where they stand; an open gate stays where it is', () => {
    for (const backend of ['iptables', 'iptables-legacy'] as const) {
      expect(codeOf(() => makePlan({ tcp: '80', backend, priority: { output: 1 } }))).toBe('bad-plan')
      expect(makePlan({ tcp: '80', backend, priority: { rule: 7 } }).priority.rule).toBe(7)
    }
    expect(codeOf(() => checkChange(makePlan({ tcp: '80' }), makePlan({ tcp: '80', priority: { rule: 7 } }), 'nft'))).toBe('cannot-change')
  })
})
