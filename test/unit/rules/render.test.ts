import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { makePlan, type PlanWish } from '#core/plan/makePlan.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import type { MachineFacts } from '#core/rules/machineFacts.ts'
import { previewRules } from '#core/rules/previewRules.ts'
import { renderIptables, renderIptablesChange, sweepIptables } from '#core/rules/renderIptables.ts'
import { isWhole, ownLines } from '#core/rules/repairIptables.ts'
import { renderNft } from '#core/rules/renderNft.ts'
import { renderRoutes } from '#core/rules/renderRoutes.ts'
import type { OldUdp, RuleSet } from '#core/rules/ruleSet.ts'

const compile = (wish: PlanWish, tools: MachineFacts['tools'] = []): RuleSet => compileRules(makePlan(wish), { tools, ipv6: true, interfaces: ['lo', 'eth0'], cgroupPrefix: 'unified', lenientLo: true })

const oldUdp: OldUdp = {
  connected: [
    { family: 'ipv4', local: { address: '192.0.2.1', port: 4000 }, remote: { address: '198.51.100.7', port: 53 } },
    { family: 'ipv6', local: { address: '2001:db8::1', port: 4001 }, remote: { address: '2001:db8::7', port: 53 } },
  ],
  ports: [68, 5353],
}

/** The rules of each kind of plan, as text to be read: a change of the compiler shows here as a change of rules. */
const goldens: Readonly<Record<string, PlanWish>> = {
  plain: { tcp: '80' },
  forwarded: { tcp: '80,443,8000-8100', scope: ['forwarded'], interfaces: ['eth0', 'veth*'], exclude: ['10.0.0.0/8', '2001:db8:f::/48'] },
  both: { tcp: '80,443', udp: '53,443', refuse: '443', exclude: ['10.0.0.0/8'] },
  incoming: { tcp: '80', udp: '53', scope: ['incoming'], interfaces: ['eth0'] },
  kept: { tcp: '80', keepPort: true },
  transparent: { tcp: '443', send: ['80,8000-8100=tproxy:3129'], keepPort: true },
  datagrams: { tcp: '', udp: '53,5000-5100', scope: ['local'], users: [1000] },
  local: { tcp: '80,443,8000-8100', scope: ['local'], users: [0, 1000, 1001], cgroups: ['user.slice', 'system.slice/a@1.service'] },
}

describe.each(Object.entries(goldens))('golden %s', (name, wish) => {
  test('rules', async () => {
    for (const { title, text } of previewRules(compile(wish), 50080)) {
      const file = { nftables: 'nft', 'iptables (IPv4)': 'iptables', 'ip6tables (IPv6)': 'ip6tables', 'Policy routing': 'routes' }[title]
      await expect(text).toMatchFileSnapshot(`golden/${name}.${file}`)
    }
  })
})

/** Kernels that can only redirect. */
const poor: MachineFacts['tools'] = [{ backend: 'nft', usable: true, redirectsBecause: 'no tproxy' }]
describe('golden redirected', () => {
  const wish: PlanWish = { tcp: '80,443', udp: '53', interfaces: ['eth0'], users: [1000], exclude: ['10.0.0.0/8'] }
  test('rules', async () => {
    const previews = previewRules(compile(wish, poor), 50080)
    // No policy routing.
    expect(previews.map(({ title }) => title)).toEqual(['nftables', 'iptables (IPv4)', 'ip6tables (IPv6)'])
    for (const [index, end] of ['nft', 'iptables', 'ip6tables'].entries()) await expect(previews[index]?.text).toMatchFileSnapshot(`golden/redirected.${end}`)
  })
})

describe('nft', () => {
  const texts = renderNft(compile(goldens['plain'] ?? { tcp: '' }), { relayPort: 50081, owner: true, leaseSeconds: 4 })
  test('each text is one line: one transaction for an interactive nft', () => {
    for (const text of Object.values<string>({ ...texts })) expect(text.match(/\n/g)).toHaveLength(1)
  })
  test('the lease has its time, and is not given by load', () => {
    expect(texts.renew).toBe('flush set inet sluice lease; add element inet sluice lease { tcp timeout 4s }\n')
    expect(texts.arm).toBe(texts.renew)
    expect(texts.load).not.toContain('add element')
  })
  test('with UDP the lease has both, and arming alone tells of the sockets that were there', () => {
    const rules = compile({ tcp: '80', udp: '53' })
    const { arm, renew, load } = renderNft(rules, { relayPort: 50081, owner: false, leaseSeconds: 4, oldUdp })
    expect(renew).toBe('flush set inet sluice lease; add element inet sluice lease { tcp timeout 4s, udp timeout 4s }\n')
    expect(arm).toBe(
      'add element inet sluice old_udp4 { 192.0.2.1 . 4000 . 198.51.100.7 . 53 }; add element inet sluice old_udp6 { 2001:db8::1 . 4001 . 2001:db8::7 . 53 }; ' +
        `add element inet sluice old_udp_ports { 68 timeout 30s, 5353 timeout 30s }; ${renew}`,
    )
    expect(load).not.toContain('add element')
    expect(renderNft(compile({ tcp: '', udp: '53', scope: ['forwarded'] }), { relayPort: 1, owner: false, leaseSeconds: 4, oldUdp }).arm).not.toContain('old_udp')
  })
  test('draining empties what takes and the lease, nothing else', () => {
    expect(texts.drain).toBe('flush chain inet sluice fwd_port; flush chain inet sluice out_port; flush set inet sluice lease\n')
  })
  test('an owned table is removed as one', () => {
    expect(texts.remove).toBe('add table inet sluice { flags owner; }; delete table inet sluice\n')
  })
  test('the preview is what is loaded, under one another', () => {
    const rules = compile(goldens['local'] ?? { tcp: '' })
    const [preview] = previewRules(rules, 50080, 'nft')
    expect(`${preview?.text.trimEnd().split('\n').join('; ')}\n`).toBe(renderNft(rules, { relayPort: 50080, owner: false, holds: true, leaseSeconds: 4 }).load)
  })
})

describe('iptables', () => {
  test('no multiport list is longer than 15, and every port is in one', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.integer({ min: 1, max: 65000 }), fc.nat(2)), { minLength: 1, maxLength: 100 }), (wish) => {
        const rules = compile({ tcp: wish.map(([from, more]) => `${from}-${from + more}`).join(',') })
        const { load } = renderIptables(rules, { relayPort: 1, family: 'ipv4' })
        const lists = [...load.matchAll(/^-A SLUICE_FWD_PORT .*--dports (\S+)/gm)].map((match) => match[1]?.split(',') ?? [])
        for (const list of lists) expect(list.join(':').split(':').length).toBeLessThanOrEqual(15)
        expect(lists.flat()).toEqual(rules.sets.tcp.map(({ from, to }) => (from === to ? String(from) : `${from}:${to}`)))
      }),
    )
  })
  const linesOf = (text: string): string[] => text.split('\n').filter((line) => /^-A/.test(line))
  test('idle, then armed, is the same as loaded', () => {
    for (const family of ['ipv4', 'ipv6'] as const) {
      const texts = renderIptables(compile({ tcp: '80', udp: '53,443' }), { relayPort: 1, family, oldUdp })
      const without = renderIptables(compile({ tcp: '80', udp: '53,443' }), { relayPort: 1, family })
      const armed = linesOf(texts.arm)
      const redone = new Set([...texts.arm.matchAll(/^:(\S+) /gm)].map((match) => match[1]))
      const kept = linesOf(without.loadIdle).filter((line) => !redone.has(line.split(' ')[1]))
      expect([...kept, ...armed].sort()).toEqual(linesOf(texts.load).sort())
      expect(linesOf(without.loadIdle).some((line) => /^-A SLUICE_(FWD|OUT)_PORT/.test(line))).toBe(false)
    }
  })
  test('sockets that were there are left out, those without a peer only until forgotten', () => {
    const texts = renderIptables(compile({ tcp: '80', udp: '53' }), { relayPort: 1, family: 'ipv4', oldUdp })
    const connected = '-A SLUICE_OUT_SEL -s 192.0.2.1 -d 198.51.100.7 -p udp -m udp --sport 4000 --dport 53 -j RETURN\n'
    const ports = '-A SLUICE_OUT_SEL -p udp -m multiport --sports 68,5353 -j RETURN\n'
    expect(texts.load).toContain(connected + ports)
    expect(texts.load).not.toContain('2001:db8::')
    const forget = (wish: PlanWish): string => {
      const ruleSet = compile(wish)
      return renderIptablesChange({ ruleSet, oldUdp }, { ruleSet, oldUdp: { connected: oldUdp.connected, ports: [] } }, { relayPort: 1, family: 'ipv4' })
    }
    const forgotten = forget({ tcp: '80', udp: '53' })
    expect(forgotten).toContain(connected)
    expect(forgotten).not.toContain('--sports')
    expect(forgotten).not.toContain('SLUICE_OUT_PORT -')
    expect(forget({ tcp: '80' })).toBe('')
  })
  test('a lease stands in each rule that takes and in no other; its renewal rewrites those chains alone; who looks for changes does not see it', () => {
    const ruleSet = compile({ tcp: '80', udp: '53' })
    const options = { relayPort: 1, family: 'ipv4' } as const
    const { load } = renderIptables(ruleSet, { ...options, until: 1_795_000_000 })
    const timed = linesOf(load).filter((line) => line.includes(' -m time --datestop 2026-11-18T11:06:40 '))
    expect(timed).toEqual(linesOf(load).filter((line) => /^-A SLUICE_(FWD|OUT)_PORT .*--dports/.test(line)))
    expect(timed).toHaveLength(4)
    const renewal = renderIptablesChange({ ruleSet, until: 1_795_000_000 }, { ruleSet, until: 1_795_000_005 }, options)
    expect([...renewal.matchAll(/^:(\S+) /gm)].map((match) => match[1])).toEqual(['SLUICE_FWD_PORT', 'SLUICE_OUT_PORT'])
    expect(renewal).not.toContain('PREROUTING')
    expect(ownLines(load)).toEqual(ownLines(renderIptables(ruleSet, options).load))
  })
  test('what was taken away is seen without knowing how iptables writes what is there', () => {
    const { load } = renderIptables(compile({ tcp: '80', udp: '53' }), { relayPort: 1, family: 'ipv4' })
    const there = ownLines(load).map((line) => line.replace('--syn', '--tcp-flags FIN,SYN,RST,ACK SYN'))
    expect(isWhole(load, there)).toBe(true)
    // A rule, a jump, a chain, all of it; or one more that is not ours to have.
    for (const [index, line] of there.entries()) expect(isWhole(load, there.filter((_, at) => at !== index)), line).toBe(false)
    expect(isWhole(load, [])).toBe(false)
    expect(isWhole(load, [...there, '-A PREROUTING -j SLUICE_PRE'])).toBe(false)
  })
  test('draining and disarming declare, and so empty, what takes', () => {
    const texts = renderIptables(compile({ tcp: '80' }), { relayPort: 1, family: 'ipv6' })
    expect(texts.drain).toBe('*mangle\n:SLUICE_FWD_PORT - [0:0]\n:SLUICE_OUT_PORT - [0:0]\nCOMMIT\n')
    expect(texts.disarm).toBe(texts.drain)
  })
  test('remove undoes every line of load that reaches outside', () => {
    const { load, remove } = renderIptables(compile({ tcp: '80' }), { relayPort: 1, family: 'ipv4' })
    const outside = load.split('\n').filter((line) => /^-A (PREROUTING|OUTPUT)/.test(line))
    expect(outside).toHaveLength(2)
    for (const line of outside) expect(remove).toContain(line.replace('-A', '-D'))
    for (const [, chain] of load.matchAll(/^:(\S+) /gm)) expect(remove).toContain(`-X ${chain}\n`)
  })

  const saved = (lines: string): string => `# Generated\n*nat\n:SLUICE_NOT_THIS_TABLE - [0:0]\nCOMMIT\n*mangle\n:PREROUTING ACCEPT [1:2]\n${lines}COMMIT\n*filter\n:SLUICE_NOR_THIS - [0:0]\nCOMMIT\n`
  test('sweeping finds nothing where nothing is', () => {
    expect(sweepIptables('', 'mangle')).toBe('')
    expect(sweepIptables(saved('-A PREROUTING -j OTHER\n'), 'mangle')).toBe('')
    expect(sweepIptables('*filter\nCOMMIT\n', 'mangle')).toBe('')
  })
  test('sweeping takes each jump by its text, as often as it is there, and leaves others', () => {
    const text = sweepIptables(saved(':SLUICE_PRE - [0:0]\n:SLUICE_TAKE - [0:0]\n:OTHER - [0:0]\n-A PREROUTING -j SLUICE_PRE\n-A PREROUTING -j OTHER\n-A PREROUTING -i eth0 -j SLUICE_PRE\n-A PREROUTING -j SLUICE_PRE\n-A SLUICE_PRE -j SLUICE_TAKE\n'), 'mangle')
    expect(text).toBe('*mangle\n:SLUICE_PRE - [0:0]\n:SLUICE_TAKE - [0:0]\n-D PREROUTING -j SLUICE_PRE\n-D PREROUTING -i eth0 -j SLUICE_PRE\n-D PREROUTING -j SLUICE_PRE\n-X SLUICE_PRE\n-X SLUICE_TAKE\nCOMMIT\n')
  })
})

describe('routes', () => {
  test('every addition is taken back by its full text, the last first', () => {
    const { apply, revert } = renderRoutes(compile({ tcp: '80' }))
    for (const family of ['-4', '-6']) {
      const added = apply.filter((argv) => argv[0] === family)
      const taken = revert.filter((argv) => argv[0] === family)
      expect(taken).toEqual(added.toReversed().map((argv) => argv.map((word, index) => (index === 2 ? 'del' : word))))
    }
    expect(apply.filter((argv) => argv[1] === 'rule').map((argv) => argv.slice(2).join(' ')).slice(0, 3)).toEqual([
      'add pref 0 fwmark 0x10000000/0x10000000 lookup 7701 protocol 77',
      'add pref 0 iif lo fwmark 0x2000000/0x2000000 lookup main protocol 77',
      'add pref 0 fwmark 0x2000000/0x2000000 lookup 7701 protocol 77',
    ])
  })
})
