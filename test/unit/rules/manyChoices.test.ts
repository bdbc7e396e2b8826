import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { makePlan, type PlanWish } from '#core/plan/makePlan.ts'
import { withoutNetworks } from '#core/plan/withoutNetworks.ts'
import type { InterceptionPlan } from '#core/plan/plan.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import { renderIptables, renderIptablesChange } from '#core/rules/renderIptables.ts'
import { renderNft } from '#core/rules/renderNft.ts'
import type { RuleSet } from '#core/rules/ruleSet.ts'
import { longestPlan } from '#test/support/longestPlan.ts'
import { jumpsOf, walkIptables, type Packet, type Walk } from './walkIptables.ts'

// A thousand ports and hundreds of networks: the rules mean what the plan says, and a packet passes few of them.

const compile = (plan: InterceptionPlan): RuleSet => compileRules(plan, { tools: [], ipv6: true, interfaces: ['lo', 'eth0'] })
const render = (plan: InterceptionPlan): string => renderIptables(compile(plan), { relayPort: 50080, family: 'ipv4', until: 1_800_000_000 }).load

const big: PlanWish = {
  tcp: Array.from({ length: 1000 }, (_, index) => String(1000 + 3 * index)).join(','),
  udp: Array.from({ length: 1000 }, (_, index) => String(20_000 + 7 * index)).join(','),
  exclude: Array.from({ length: 500 }, (_, index) => `203.${String(index >> 4)}.${String((index & 15) * 16)}.0/${String(21 + (index % 8))}`),
}
const small: PlanWish = { tcp: '1000', udp: '20000' }
const walks = (wish: PlanWish, packets: readonly Packet[]): Walk[] => {
  const text = render(makePlan(wish))
  return packets.flatMap((packet) => (['PREROUTING', 'OUTPUT'] as const).map((hook) => walkIptables(text, hook, packet)))
}
const packetsOf = (opens: boolean): Packet[] =>
  Array.from({ length: 600 }, (_, index): Packet => ({
    transport: index % 2 === 0 ? 'tcp' : 'udp',
    source: '198.51.100.2',
    destination: index % 3 === 0 ? '198.51.100.9' : `203.${String(index % 40)}.${String((index * 37) % 256)}.1`,
    port: index % 2 === 0 ? 1000 + index * 5 : 20_000 + index * 7,
    opens,
  }))

describe('a thousand ports and five hundred exclusions, on iptables', () => {
  test('what opens no flow passes no more rules than with one port', () => {
    const [many, one] = [walks(big, packetsOf(false)), walks(small, packetsOf(false))]
    expect(many.some(({ taken }) => taken)).toBe(false)
    expect(many.map(({ rules }) => rules)).toEqual(one.map(({ rules }) => rules))
  })
  test('what opens one passes a few dozen', () => {
    const many = walks(big, packetsOf(true))
    expect(many.filter(({ taken }) => taken).length).toBeGreaterThan(100)
    expect(Math.max(...many.map(({ rules }) => rules))).toBeLessThan(80)
    expect(render(makePlan(big)).split('\n').length).toBeGreaterThan(600)
  })
  test('no chain has a long name, and draining leaves nothing that takes', () => {
    const texts = renderIptables(compile(makePlan(big)), { relayPort: 50080, family: 'ipv4' })
    for (const [, name = ''] of texts.load.matchAll(/^:(\S+) /gm)) expect(name.length).toBeLessThan(29)
    const emptied = [...texts.drain.matchAll(/^:(\S+) /gm)].map(([, name]) => name)
    const drained = texts.load.split('\n').filter((line) => !emptied.includes(/^-A (\S+)/.exec(line)?.[1])).join('\n')
    for (const packet of packetsOf(true)) expect(walkIptables(drained, 'PREROUTING', packet).taken).toBe(false)
    // In two steps it is the same as in one; the second empties what it fills again.
    const lines = (text: string): string[] => [...new Set(text.split('\n').filter((line) => line.startsWith('-A')))].sort()
    expect(lines(texts.loadIdle + texts.arm)).toEqual(lines(texts.load))
    // Every chain it fills is one it declares, and taking back names each.
    const declared = [...texts.load.matchAll(/^:(\S+) /gm)].map(([, name]) => name)
    for (const [, name] of texts.load.matchAll(/-[Ajg] (SLUICE_\S+)/g)) expect(declared).toContain(name)
    for (const name of declared) expect(texts.remove).toContain(`\n-X ${String(name)}\n`)
  })
  test('from many to one and back names no chain that is not there', () => {
    const options = { relayPort: 50080, family: 'ipv4' } as const
    const [many, one] = [{ ruleSet: compile(makePlan(big)) }, { ruleSet: compile(makePlan(small)) }]
    const there = new Set([...renderIptables(many.ruleSet, options).load.matchAll(/^:(\S+) /gm)].map(([, name]) => name))
    const text = renderIptablesChange(many, one, options)
    const left = new Set([...renderIptables(one.ruleSet, options).load.matchAll(/^:(\S+) /gm)].map(([, name]) => name))
    for (const [, name] of text.matchAll(/^-X (\S+)/gm)) {
      expect(there.has(name)).toBe(true)
      there.delete(name)
    }
    expect([...there].sort()).toEqual([...left].sort())
  })
})

test('as much of everything as a plan may have: nf_tables follows the jumps, and before Linux 6.19 looks through few chains', () => {
  const ids = { users: [0], groups: [0], cgroups: Array.from({ length: 64 }, (_, index) => `work/${String(index)}`) }
  const rules = compile(makePlan(longestPlan(ids)))
  for (const family of ['ipv4', 'ipv6'] as const) {
    const text = renderIptables(rules, { relayPort: 50080, family, holds: true, until: 1_800_000_000 }).load
    for (const hook of ['PREROUTING', 'OUTPUT']) {
      const { deepest, visits } = jumpsOf(text, hook)
      expect(deepest).toBeLessThanOrEqual(13)
      expect(visits).toBeLessThan(20_000)
    }
  }
})

test('however networks lie, few branches lead to each', () => {
  const allButOne = { ipv4: withoutNetworks(['0.0.0.0/0'], ['198.51.100.77']), ipv6: withoutNetworks(['::/0'], ['2001:db8::77']) }
  expect([allButOne.ipv4.length, allButOne.ipv6.length]).toEqual([32, 128])
  for (const family of ['ipv4', 'ipv6'] as const) {
    const text = renderIptables(compile(makePlan({ tcp: '80', servers: allButOne[family], sources: allButOne[family], exclude: allButOne[family], excludeSources: allButOne[family] })), { relayPort: 50080, family }).load
    for (const hook of ['PREROUTING', 'OUTPUT']) expect(jumpsOf(text, hook).deepest).toBeLessThan(10)
  }
  const text = render(makePlan({ tcp: '80', servers: allButOne.ipv4 }))
  for (const last of [0, 1, 76, 77, 78, 79, 127, 128, 255]) expect(walkIptables(text, 'PREROUTING', { transport: 'tcp', source: '192.0.2.1', destination: `198.51.100.${String(last)}`, port: 80, opens: true }).taken).toBe(last !== 77)
})

test('on nft they are elements of sets, and the rules are as many as for one port', () => {
  const rules = (wish: PlanWish): number => renderNft(compile(makePlan(wish)), { relayPort: 50080, owner: true, leaseSeconds: 4 }).load.split('; ').filter((command) => command.startsWith('add rule')).length
  expect(rules(big)).toBe(rules(small))
})

test('whatever is chosen, the rules of iptables mean what the plan says', () => {
  const octet = fc.integer({ min: 0, max: 7 })
  const network = fc.tuple(octet, octet, fc.integer({ min: 14, max: 32 })).map(([a, b, length]) => `198.51.${String(a)}.${String(b * 32)}/${String(length)}`)
  const networks = fc.oneof(fc.constant([] as string[]), fc.array(network, { minLength: 1, maxLength: 120 }))
  const ports = fc.array(fc.tuple(fc.integer({ min: 1, max: 600 }), fc.integer({ min: 0, max: 3 })), { minLength: 1, maxLength: 300 }).map((list) => list.map(([from, more]) => `${String(from)}-${String(from + more)}`).join(','))
  const address = fc.tuple(octet, fc.integer({ min: 0, max: 255 })).map(([a, b]) => `198.51.${String(a)}.${String(b)}`)
  const packet = fc.record({ transport: fc.constantFrom('tcp' as const, 'udp' as const), source: address, destination: address, port: fc.integer({ min: 1, max: 610 }), opens: fc.constant(true) })
  fc.assert(
    fc.property(ports, fc.option(ports, { nil: '' }), networks, networks, networks, networks, fc.array(packet, { minLength: 20, maxLength: 20 }), (tcp, udp, exclude, excludeSources, servers, sources, packets) => {
      const text = render(makePlan({ tcp, udp, exclude, excludeSources, servers, sources }))
      const bare = render(makePlan({ tcp, udp }))
      const within = (list: readonly string[], one: string): boolean => {
        const alone = render(makePlan({ tcp: '1', servers: list.length === 0 ? [] : [...list] }))
        return walkIptables(alone, 'PREROUTING', { transport: 'tcp', source: '192.0.2.1', destination: one, port: 1, opens: true }).taken
      }
      for (const each of packets) {
        for (const hook of ['PREROUTING', 'OUTPUT'] as const) {
          const chosen = (list: readonly string[], one: string): boolean => list.length === 0 || within(list, one)
          const meant = inPorts(each.transport === 'tcp' ? tcp : udp, each.port)
            && !(exclude.length > 0 && within(exclude, each.destination)) && !(excludeSources.length > 0 && within(excludeSources, each.source))
            && chosen(servers, each.destination) && chosen(sources, each.source)
          const { taken, mark } = walkIptables(text, hook, each)
          expect(taken).toBe(meant)
          // The bit in which lists answer stays with nobody who goes on.
          if (!taken) expect(mark).toBe(0)
          expect(walkIptables(bare, hook, each).taken).toBe(inPorts(each.transport === 'tcp' ? tcp : udp, each.port))
        }
      }
    }),
    { numRuns: 40 },
  )
})

function inPorts(text: string, port: number): boolean {
  return text.split(',').some((part) => {
    const [from = 0, to = 0] = part.split('-').map(Number)
    return port >= from && port <= to
  })
}
