import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { Failure } from '#core/contract/failure.ts'
import { makePlan } from '#core/plan/makePlan.ts'
import { scopes } from '#core/plan/plan.ts'
import type { InterceptionPlan } from '#core/plan/plan.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import type { MachineFacts } from '#core/rules/machineFacts.ts'
import { renderIptables } from '#core/rules/renderIptables.ts'
import { loadCommands, renderNft } from '#core/rules/renderNft.ts'
import { renderRoutes } from '#core/rules/renderRoutes.ts'
import type { OldUdp, RuleSet } from '#core/rules/ruleSet.ts'

/**
 * Whatever a person, or somebody who speaks for them, puts into a plan: if it is valid, the texts that root loads are made of these words alone. Names that
 * come from outside (interfaces, cgroups) stand quoted or are of a plain alphabet, so none can end a word, a line or a command.
 */
const number = String.raw`\d+(?:-\d+)?`
const hex = '0x[0-9a-f]+'
const address = String.raw`(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f:]*:[0-9a-f:.]*)(?:/\d{1,3})?`
const bare = '[a-z][a-z0-9_-]*'

/** In quotes nft gives a backslash (systemd's `\x2d`) no meaning. */
const nftWord = new RegExp(`^(?:${number}s?|${hex}|${address}(?:-${address})?|\\[::1\\]:\\d+|127\\.0\\.0\\.1:\\d+|:\\d+|@?${bare}|"[A-Za-z0-9_.@:*/\\\\-]+"|[{}();,&|.+]|==?|!=|<|-\\d+)$`)
const nftWords = (text: string): readonly string[] => text.match(/"[^"]*"|[{}();,](?!:)|[^\s{}();,"]+/g) ?? []

const iptablesWord = new RegExp(`^(?:\\*mangle|\\*nat|COMMIT|:SLUICE_[A-Z_0-9]+|\\[0:0\\]|SLUICE_[A-Z_0-9]+|-{1,2}[a-zA-Z-]+|[-!]|[A-Z]+(?:,[A-Z]+)*|${hex}/${hex}|\\d+(?::\\d+)?(?:,\\d+(?::\\d+)?)*|${number}|${address}|tcp|udp|icmp|icmpv6|socket|mark|connmark|conntrack|addrtype|multiport|owner|cgroup|time|ttl|hl|physdev|\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d)$`)
/** Behind these stand names from outside: one word of a plain alphabet, which begins with no dash. */
const namedBy: Readonly<Record<string, RegExp>> = { '-i': /^[A-Za-z0-9_.:@][A-Za-z0-9_.:@-]{0,14}\+?$/, '--path': /^[A-Za-z0-9_.:@\\-][A-Za-z0-9_.:@\\/-]*$/ }

function checkIptables(text: string): void {
  for (const line of text.split('\n')) {
    const words = line === '' ? [] : line.split(' ')
    for (const [index, word] of words.entries()) {
      const named = namedBy[words[index - 1] ?? '']
      if (!(named ?? iptablesWord).test(word)) throw new Error(`${JSON.stringify(word)} in ${line}`)
    }
  }
}

const anything = fc.oneof(fc.string({ maxLength: 12 }), fc.string({ unit: 'binary', maxLength: 12 }), fc.constantFrom('eth0', 'veth*', 'a"; flush ruleset; #', 'x\ny', '$(id)', '-j', 'lo', 'system.slice/ssh.service', 'a b/c', '../x', 'user@1000.service', 'a\\x2db.scope', '"', '203.0.113.0/24;', '2001:db8::/32', '::ffff:203.0.113.1', '198.51.100.7'))
const ranges = fc.array(fc.tuple(fc.integer({ min: 1, max: 65_535 }), fc.nat(300)).map(([from, more]) => `${String(from)}-${String(Math.min(65_535, from + more))}`), { maxLength: 20 }).map((list) => list.join(','))
const bits = fc.shuffledSubarray(Array.from({ length: 32 }, (_, bit) => (1 << bit) >>> 0), { minLength: 3, maxLength: 3 })
/** Nothing, what may be, or now and then anything at all. */
const some = <Item>(good: fc.Arbitrary<Item>, all: fc.Arbitrary<Item>): fc.Arbitrary<Item[]> =>
  fc.oneof({ weight: 10, arbitrary: fc.constant([] as Item[]) }, { weight: 9, arbitrary: fc.array(good, { maxLength: 4 }) }, { weight: 1, arbitrary: fc.array(all, { maxLength: 3 }) })
const names = fc.constantFrom('eth0', 'veth*', 'br-0a1b2c', 'wg.1', '@x', '0', 'tcp', 'accept', 'drop')
const paths = fc.constantFrom('system.slice/ssh.service', 'user.slice/user-1000.slice/user@1000.service', 'a\\x2db.scope', 'machine.slice/libpod:1.scope', '-', '-j', 'accept')
const networks = fc.oneof(fc.constantFrom('203.0.113.0/24', '2001:db8::/32', '::/0', '0.0.0.0/0', '::ffff:198.51.100.0/120'), fc.ipV4(), fc.ipV6())
const wishes = fc.record({
  tcp: ranges, udp: ranges, refuse: ranges, hold: fc.boolean(), scope: fc.constantFrom(['local'] as const, ['forwarded'] as const, ['local', 'forwarded'] as const, ['incoming'] as const, scopes),
  interfaces: some(names, anything), sources: some(networks, anything), excludeSources: some(networks, anything), servers: some(networks, anything), exclude: some(networks, anything), cgroups: some(paths, anything),
  users: some(fc.nat(2 ** 31), fc.integer({ min: -1, max: 2 ** 32 })), groups: some(fc.nat(2 ** 31), fc.double()), send: fc.constantFrom([], ['80,8000-8100=tproxy:3129', '443=socks5:127.0.0.1:1080']), relayPort: fc.integer({ min: 1, max: 65_535 }), table: fc.integer({ min: 256, max: 2 ** 31 - 1 }), priority: fc.record({ prerouting: fc.integer({ min: -199, max: 10_000 }), output: fc.integer({ min: -199, max: 10_000 }), rule: fc.integer({ min: 0, max: 32_765 }) }),
  marks: bits.map(([forwarded = 1, local = 2, uplink = 4]) => ({ forwarded, local, uplink })),
})
const oldUdp: OldUdp = { connected: [{ family: 'ipv6', local: { address: '2001:db8::1', port: 1 }, remote: { address: '2001:db8::2', port: 53 } }, { family: 'ipv4', local: { address: '198.51.100.1', port: 2 }, remote: { address: '203.0.113.1', port: 53 } }], ports: [5353] }

/** The plan and its rules on a machine that has whatever it names; undefined: it is refused, in words of ours. */
function compiled(wish: Parameters<typeof makePlan>[0], redirects: boolean): { readonly plan: InterceptionPlan; readonly ruleSet: RuleSet } | undefined {
  try {
    const plan = makePlan(wish)
    const facts: MachineFacts = { tools: [{ backend: 'nft', usable: true, ...(redirects ? { redirectsBecause: 'no' } : {}) }], ipv6: true, lenientLo: true, interfaces: [...plan.interfaces], cgroups: [...plan.cgroups] }
    return { plan, ruleSet: { ...compileRules(plan, facts), ...(redirects ? {} : { bridgesCall: true }) } }
  } catch (error) {
    expect(error).toBeInstanceOf(Failure)
    return undefined
  }
}

describe('the texts that root loads', () => {
  test('are made of known words alone, for any valid plan', () => {
    let valid = 0
    fc.assert(fc.property(wishes, fc.boolean(), fc.boolean(), (wish, owner, redirects) => {
      const found = compiled(wish, redirects)
      if (found === undefined) return
      valid++
      const { plan: { relayPort }, ruleSet } = found
      const { load, arm, renew, drain, remove } = renderNft(ruleSet, { relayPort, owner, holds: true, oldUdp, leaseSeconds: 4 })
      for (const text of [load, arm, renew, drain, remove]) {
        // One line is one transaction; what follows a line end would be another.
        expect(text.indexOf('\n')).toBe(text.length - 1)
        for (const word of nftWords(text)) if (!nftWord.test(word)) throw new Error(`${JSON.stringify(word)} in ${text}`)
      }
      // Each command by itself begins as one of ours and names our table.
      for (const command of loadCommands(ruleSet, { relayPort, owner, holds: true, leaseSeconds: 4 })) expect(command).toMatch(/^add (?:table|set|chain|rule|element) inet sluice\b/)
      for (const family of ['ipv4', 'ipv6'] as const) {
        const texts = renderIptables(ruleSet, { relayPort, family, holds: true, oldUdp, until: 1_795_000_000 })
        for (const text of Object.values<string>({ ...texts })) checkIptables(text)
      }
      const routes = renderRoutes(ruleSet)
      for (const args of [...routes.apply, ...routes.revert]) for (const word of args) expect(word).toMatch(/^(?:-[46]|[a-z]+|\d+|0x[0-9a-f]+\/0x[0-9a-f]+)$/)
    }), { numRuns: 150 })
    // A test in which everything is refused proves nothing.
    expect(valid).toBeGreaterThan(40)
  })
  test.each(['a"; flush ruleset; #', 'x\ny', 'eth0 -j DROP', '$(id)', '-j', '', '"', 'ab\u0000c', 'é'])('a name that is none is refused: %j', (name) => {
    expect(() => makePlan({ tcp: '80', interfaces: [name] })).toThrow(expect.objectContaining({ code: 'bad-interface' }))
  })
  test.each(['a"b', 'x\ny', 'a/../b', 'a b', '', 'a//b', 'ab\u0000c'])('nor as a cgroup: %j', (path) => {
    expect(() => makePlan({ tcp: '80', cgroups: [path] })).toThrow(expect.objectContaining({ code: 'bad-cgroup' }))
  })
})
