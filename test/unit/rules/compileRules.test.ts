import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { Failure } from '#core/contract/failure.ts'
import { describePlan } from '#core/plan/describePlan.ts'
import { makePlan, type PlanWish } from '#core/plan/makePlan.ts'
import { scopes } from '#core/plan/plan.ts'
import type { MachineFacts } from '#core/rules/machineFacts.ts'
import { canonicalRules } from '#core/rules/canonicalRules.ts'
import { chooseBackend, redirectReason } from '#core/rules/chooseBackend.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import { describeOpening } from '#core/rules/describeOpening.ts'
import type { RuleSet } from '#core/rules/ruleSet.ts'
import { digestRules } from '#probe/digestRules.ts'
import { checkTools } from '#probe/doctorTools.ts'
import { findPlaces } from '#probe/places.ts'

const facts: MachineFacts = { tools: [], ipv6: true, interfaces: ['lo', 'eth0', 'wlan0'] }
const compile = (wish: PlanWish, more: Partial<MachineFacts> = {}): RuleSet => compileRules(makePlan(wish), { ...facts, ...more })

function failureOf(act: () => unknown): Failure {
  try {
    act()
  } catch (error) {
    if (error instanceof Failure) return error
    throw error
  }
  throw new Error('it did not fail')
}

describe('compileRules', () => {
  test('an unknown interface is named together with what there is', () => {
    const failure = failureOf(() => compile({ tcp: '80', interfaces: ['eth7'] }))
    expect(failure.code).toBe('unknown-interface')
    expect(failure.message).toBe('There is no interface eth7 here; there is eth0, wlan0')
  })
  test('a beginning need not match anything yet, and interfaces do not matter to local traffic', () => {
    expect(compile({ tcp: '80', interfaces: ['veth*'] }).sets.interfaces).toEqual(['veth*'])
    expect(compile({ tcp: '80', interfaces: ['eth7'], scope: ['local'] }).sets.interfaces).toEqual([])
  })
  test('a cgroup that is not there is compiled for, and said', () => {
    const there: MachineFacts = { ...facts, cgroups: ['a'] }
    const plan = makePlan({ tcp: '80', cgroups: ['a/b.service', 'a'] })
    expect(compileRules(plan, there).sets.cgroups).toEqual([{ path: 'a', level: 1 }])
    const missing = makePlan({ tcp: '80', cgroups: ['a/b.service'] })
    expect(compileRules(missing, there).sets.cgroups).toEqual([{ path: 'a/b.service', level: 2 }])
    expect(describeOpening(missing, there)).toContain('Unit b.service is not running: nothing of it is taken until it starts.')
    expect(describeOpening(plan, there)).toEqual(describePlan(plan))
    expect(describeOpening({ ...missing, scope: ['forwarded'] }, there).join(' ')).not.toContain('b.service')
  })
  test('only what the scope needs', () => {
    const names = (wish: PlanWish): string[] => compile(wish).chains.map((chain) => chain.name)
    expect(names({ tcp: '80', scope: ['forwarded'] })).toEqual(['divert', 'take', 'fwd_on', 'fwd_port', 'fwd_sel', 'pre'])
    expect(names({ tcp: '80', scope: ['incoming'] })).toEqual(['divert', 'take', 'fwd_on', 'fwd_port', 'in_sel', 'pre', 'out'])
    expect(names({ tcp: '80', scope: ['local'] })).toEqual(['divert', 'near_lo', 'take_lo', 'pre', 'out_take', 'out_port', 'out_sel', 'out'])
    expect(names({ tcp: '', send: ['80=tproxy:3129'], scope: ['forwarded'] })).toEqual(['divert', 'take', 'fwd_on', 'fwd_port', 'fwd_sel', 'hand_lo', 'pre', 'out'])
    expect(names({ tcp: '80', scope: ['local'], users: [1], cgroups: ['a'] })).toEqual(expect.arrayContaining(['out_user', 'out_group']))
  })
  test('UDP brings what it needs, and a transport nobody chose brings nothing', () => {
    const matches = (wish: PlanWish): Set<string> => new Set(compile(wish).chains.flatMap((chain) => chain.steps.flatMap((step) => step.when.map((match) => match.is))))
    const udpOnly = ['udp', 'flow-established', 'flow-not-marked', 'of-old-udp-socket']
    const tcpOnly = ['tcp', 'tcp-opening', 'tcp-going-on']
    expect(udpOnly.filter((each) => matches({ tcp: '80' }).has(each))).toEqual([])
    expect(tcpOnly.filter((each) => matches({ tcp: '', udp: '53' }).has(each))).toEqual([])
    expect([...udpOnly, ...tcpOnly].filter((each) => !matches({ tcp: '80', udp: '53' }).has(each))).toEqual([])
  })
  test('exclusions swallow and are swallowed by what is never taken', () => {
    expect(compile({ tcp: '80', exclude: ['169.254.1.0/24', '128.0.0.0/1', 'fe80::1', '::/0'] }).sets.skip).toEqual({ ipv4: ['0.0.0.0/8', '128.0.0.0/1'], ipv6: ['::/0'] })
  })

  const wishes = fc.record({
    tcp: fc.constantFrom('80', '1-65535', '80,443,8000-8100'),
    udp: fc.constantFrom('', '53', '1-65535'),
    scope: fc.uniqueArray(fc.constantFrom(...scopes), { minLength: 1 }),
    users: fc.array(fc.nat(5), { maxLength: 4 }),
    cgroups: fc.array(fc.constantFrom('a', 'b/c'), { maxLength: 2 }),
    interfaces: fc.array(fc.constantFrom('eth0', 'w*'), { maxLength: 2 }),
  })
  test('every jump leads to a chain of its own set, without circles, and every chain is reached', () => {
    fc.assert(
      fc.property(wishes, (wish) => {
        const { chains } = compile(wish)
        const reached = new Set<string>()
        const walk = (name: string, path: readonly string[]): void => {
          expect(path).not.toContain(name)
          reached.add(name)
          const chain = chains.find((each) => each.name === name)
          expect(chain, name).toBeDefined()
          for (const { then } of chain?.steps ?? []) if (then.does === 'jump') walk(then.to, [...path, name])
        }
        for (const chain of chains) if (chain.hook !== undefined) walk(chain.name, [])
        expect([...reached].sort()).toEqual(chains.map((chain) => chain.name).sort())
      }),
    )
  })
  test('a flow is taken only by its opening packet, under the lease, in a chain that draining empties', () => {
    fc.assert(
      fc.property(wishes, (wish) => {
        for (const chain of compile(wish).chains) {
          for (const step of chain.steps) {
            const takes = step.then.does === 'jump' && ['take', 'out_take'].includes(step.then.to)
            expect(chain.takes === true).toBe(takes)
            const asks = step.when.map((match) => match.is)
            // On the way there a program's UDP is asked whether conntrack has seen an answer, or knows it as what was the relay's own.
            if (step.then.does === 'jump' && step.then.to === 'out_sel') expect([['tcp-opening'], ['udp', 'flow-new'], ['udp', 'original-direction', 'flow-marked']]).toContainEqual(asks)
            if (!takes) continue
            expect(asks).toEqual(expect.arrayContaining(['leased', 'to-chosen-port']))
            const transports = new Set(step.when.flatMap((match) => ('transport' in match ? [match.transport] : [])))
            expect(transports.size).toBe(1)
            if (transports.has('tcp')) expect(asks).toContain('tcp-opening')
          }
        }
      }),
    )
  })
})

describe('canonicalRules', () => {
  test('does not depend on the order of keys, nor on what is no meaning', () => {
    const rules = compile({ tcp: '80,443', users: [1], exclude: ['10.0.0.0/8'] })
    const turned = reverseKeys(rules) as RuleSet
    expect(Object.keys(turned)).not.toEqual(Object.keys(rules))
    expect(canonicalRules(turned)).toBe(canonicalRules(rules))
    expect(digestRules(turned)).toBe(digestRules(rules))
    expect(canonicalRules({ ...rules, cgroupPrefix: 'unified' })).toBe(canonicalRules(rules))
    expect(digestRules(compile({ tcp: '80,443', users: [1], exclude: ['10.0.0.0/8'], relayPort: 4000, backend: 'nft' }))).toBe(digestRules(rules))
  })
  test('any difference in what is taken is another digest', () => {
    const wishes: PlanWish[] = [
      { tcp: '80' }, { tcp: '81' }, { tcp: '80-81' }, { tcp: '80', scope: ['local'] }, { tcp: '80', scope: ['forwarded'] }, { tcp: '80', users: [1] }, { tcp: '80', cgroups: ['a'] },
      { tcp: '80', interfaces: ['eth0'] }, { tcp: '80', exclude: ['10.0.0.0/8'] }, { tcp: '80', exclude: ['2001:db8::/32'] },
      { tcp: '80', udp: '80' }, { tcp: '80', udp: '53' }, { tcp: '', udp: '80' },
    ]
    const digests = wishes.map((wish) => digestRules(compile(wish)))
    expect(new Set([...digests, digestRules(compile({ tcp: '80' }, { ipv6: false }))]).size).toBe(wishes.length + 1)
    for (const digest of digests) expect(digest).toMatch(/^[0-9a-f]{64}$/)
  })
})

describe('where the kernel can only redirect', () => {
  const poor: Pick<MachineFacts, 'tools'> = { tools: [{ backend: 'nft', path: '/usr/sbin/nft', usable: true, redirectsBecause: 'no tproxy' }] }
  test('TCP is taken in nat chains without routing, UDP is not, and who wants UDP alone is told', () => {
    const rules = compile({ tcp: '80', udp: '53', refuse: '443' }, poor)
    expect(rules).toMatchObject({ way: 'redirect', sets: { tcp: [{ from: 80, to: 80 }], udp: [] }, routing: { rules: [] } })
    expect(failureOf(() => compile({ tcp: '', udp: '53' }, poor)).code).toBe('no-tproxy')
    expect(digestRules(rules)).not.toBe(digestRules(compile({ tcp: '80' })))
  })
  test('what is lost is said, and no more than that', () => {
    expect(describeOpening(makePlan({ tcp: '80', udp: '53', refuse: '443' }), poor).slice(-5)).toEqual([
      'This kernel cannot hand connections over as they are (no tproxy), so TCP is redirected (NAT), with losses.',
      'UDP ports 53, 443 cannot be intercepted or refused: left alone.',
      'Servers see this computer’s address instead of the devices’.',
      'The relay listens on every address of this computer; whoever speaks to it directly is turned away.',
      'A connection is accepted before its server has answered, so a closed port looks open for a moment.',
    ])
    expect(describeOpening(makePlan({ tcp: '80', hold: false, scope: ['local'] }), poor).at(-1)).toContain('so TCP is redirected')
    expect(describeOpening(makePlan({ tcp: '80', udp: '53' }), poor)[0]).toBe('TCP port 80 will be intercepted.')
    expect(describeOpening(makePlan({ tcp: '80' }), { tools: [] })).toEqual(describePlan(makePlan({ tcp: '80' })))
  })
  test('the doctor warns and says how to mend it', async () => {
    const rows = await checkTools({ isRoot: true, facts: { ...facts, ...poor }, places: findPlaces(), ruleset: undefined, legacy: undefined, folder: '/' })
    expect(rows.filter(({ verdict }) => verdict === 'warn').map(({ id }) => id)).toEqual(['nft', 'redirect', 'owner'])
    expect(rows.find(({ id }) => id === 'nft')?.mend).toContain('modprobe')
  })
})

describe('chooseBackend', () => {
  const tools = (...usable: string[]): Pick<MachineFacts, 'tools'> => ({
    tools: (['iptables-legacy', 'nft', 'iptables'] as const).map((backend) => (usable.includes(backend) ? { backend, usable: true } : { backend, usable: false, reason: `${backend} sleeps` })),
  })
  test.each([
    [['nft', 'iptables', 'iptables-legacy'], 'nft'],
    [['iptables', 'iptables-legacy'], 'iptables'],
    [['iptables-legacy'], 'iptables-legacy'],
  ])('auto among %j is %s', (usable, best) => expect(chooseBackend({ backend: 'auto' }, tools(...usable))).toBe(best))
  test('a named one is taken, or missing with its reason', () => {
    expect(chooseBackend({ backend: 'iptables-legacy' }, tools('nft', 'iptables-legacy'))).toBe('iptables-legacy')
    const failure = failureOf(() => chooseBackend({ backend: 'nft' }, tools('iptables')))
    expect([failure.code, failure.message]).toEqual(['backend-missing', 'nft was asked for and cannot be used here: nft sleeps'])
    expect(failureOf(() => chooseBackend({ backend: 'nft' }, { tools: [] })).message).toContain('nft was not found')
  })
  test('one that only redirects comes last, and is taken when it is named', () => {
    const mixed: Pick<MachineFacts, 'tools'> = { tools: [{ backend: 'nft', usable: true, redirectsBecause: 'no tproxy' }, { backend: 'iptables-legacy', usable: true }] }
    expect([chooseBackend({ backend: 'auto' }, mixed), redirectReason({ backend: 'auto' }, mixed)]).toEqual(['iptables-legacy', undefined])
    expect([chooseBackend({ backend: 'nft' }, mixed), redirectReason({ backend: 'nft' }, mixed)]).toEqual(['nft', 'no tproxy'])
  })
  test('none: every reason', () => {
    const failure = failureOf(() => chooseBackend({ backend: 'auto' }, tools()))
    expect([failure.code, failure.detail]).toEqual(['no-backend', 'nft: nft sleeps; iptables: iptables sleeps; iptables-legacy: iptables-legacy sleeps'])
  })
})

function reverseKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reverseKeys)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(Object.entries(value).reverse().map(([key, inner]) => [key, reverseKeys(inner)]))
}
