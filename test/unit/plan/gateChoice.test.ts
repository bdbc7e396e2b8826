import { describe, expect, test } from 'vitest'

import type { GateChoice } from '#core/contract/bridge.ts'
import { formatPortWords } from '#core/plan/formatPortWords.ts'
import { parsePortWords } from '#core/plan/parsePortWords.ts'
import { checkChoice, choiceKey, defaultChoice, planOfChoice, programWord } from '#core/plan/gateChoice.ts'
import { flowChoice } from '#core/plan/flowChoice.ts'
import { keepLimits, keepsSame } from '#core/plan/keepLimits.ts'
import { formatPlanPorts } from '#core/plan/formatPlanPorts.ts'

const nobody = { users: [], groups: [], cgroups: [] }
const said = (part: string): string => expect.stringContaining(part) as string
const chosen = (change: Partial<GateChoice>): GateChoice => ({ ...defaultChoice, ...change })

describe('ports of both transports in one line', () => {
  test.each([
    ['80, 443, 53/udp', '80, 443, 53/udp'], ['53/udp 443/UDP,80/tcp', '80, 53/udp, 443/udp'], ['8000 - 8100 / udp', '8000-8100/udp'], ['80,81,82,53/udp,54/udp', '80-82, 53-54/udp'],
  ])('%s', (text, canonical) => {
    expect(formatPortWords(parsePortWords(text))).toBe(canonical)
    expect(parsePortWords(canonical)).toEqual(parsePortWords(text))
  })
  test.each([['', /No ports given/], ['80,,443', /nothing between two commas/], ['53/udp,', /nothing between two commas/], ['53/sctp', /"53\/sctp" is no port.*53\/udp/], ['53/udp/udp', /no port/], ['/udp', /"\/udp"/], ['0/udp', /out of range/], ['90-80/udp', /runs backwards/]])('%s is refused', (text, why) => {
    expect(() => parsePortWords(text)).toThrow(why)
  })
})

describe('a choice', () => {
  test('as it is at first is right', () => {
    expect(checkChoice(defaultChoice)).toEqual({})
  })
  test('with everything in it becomes the plan of the same words on the command line', () => {
    const choice = chosen({
      ports: '80, 53/udp', refuse: '443', udpIdle: { dns: '5', quic: '', other: '' }, send: [{ ports: '8080', kind: 'socks5', to: '[::1]:1080' }], sources: '198.51.100.0/24',
      excludeSources: '198.51.100.9', servers: '203.0.113.0/24 2001:db8::/32', exclude: '203.0.113.9', interfaces: 'br0 veth*', marks: '0x100000,0x200000,0x400000', table: '300', priority: '-120,-150,9', hold: false,
    })
    expect(checkChoice(choice)).toEqual({})
    const plan = planOfChoice(choice, { users: [1000], groups: [], cgroups: ['user.slice'] })
    expect(formatPlanPorts(plan)).toBe('tcp 80,8080 udp 53,443')
    expect(plan).toMatchObject({
      udpIdle: { dns: 5, quic: 60, other: 60 }, refuse: [{ from: 443, to: 443 }], hold: false, table: 300, priority: { prerouting: -120, output: -150, rule: 9 }, marks: { forwarded: 0x100000, local: 0x200000, uplink: 0x400000 },
      sources: ['198.51.100.0/24'], excludeSources: ['198.51.100.9/32'], exclude: ['203.0.113.9/32'], users: [1000], cgroups: ['user.slice'],
    })
  })
  test('devices\' ports are kept where connections wait for their server', () => {
    const keeps = (choice: Partial<GateChoice>): boolean => planOfChoice(chosen(choice), nobody).keepPort
    expect([keeps({ keepPort: true }), keeps({ keepPort: true, hold: false }), keeps({})]).toEqual([true, false, false])
  })
  test('says of every field at once what is wrong with it', () => {
    expect(checkChoice(chosen({
      ports: '0', refuse: 'x', udpIdle: { dns: '0', quic: '', other: '' }, send: [{ ports: '80', kind: 'socks5', to: '/run/x' }], scope: { local: false, forwarded: false, incoming: false }, interfaces: 'lo',
      sources: '300.1.1.1', excludeSources: '::/129', servers: 'a', exclude: '198.51.100.0/99', programs: '/', netns: 'two words', marks: '1,2', table: '7', priority: '-500',
    }))).toMatchObject({
      ports: said('out of range'), refuse: said('no port'), udpIdle: said('"0"'), send: 'A SOCKS server is reached by address and port', scope: said('whose traffic'), interfaces: said('lo carries'),
      sources: said('300.1.1.1'), excludeSources: said('length over 128'), servers: said('no IPv4 or IPv6'), exclude: said('length over 32'), programs: said('root of all cgroups'),
      netns: said('one network namespace'), marks: said('three different single bits'), table: said('256'), priority: said('-199'),
    })
  })
  test('may name ports only to refuse or to send them, but must name some', () => {
    expect(checkChoice(chosen({ ports: '', refuse: '443' }))).toEqual({})
    expect(checkChoice(chosen({ ports: '', send: [{ ports: '80', kind: 'proxy2', to: '/run/x.sock' }] }))).toEqual({})
    expect(checkChoice(chosen({ ports: ' ' }))).toEqual({ ports: said('No ports given') })
    expect(() => planOfChoice(chosen({ ports: '' }), nobody)).toThrow(/nothing to intercept/)
  })
  test('keeps so many bytes at most, however they are typed', () => {
    expect(keepLimits(defaultChoice.keep)).toEqual({ maxBytes: 2 ** 32, maxBytesPerFlow: null })
    expect(keepLimits({ session: ' ', flow: '64 KiB' })).toEqual({ maxBytes: null, maxBytesPerFlow: 65_536 })
    expect([keepsSame({ session: '4GiB', flow: '' }, defaultChoice.keep), keepsSame({ session: '4G', flow: '' }, defaultChoice.keep)]).toEqual([true, false])
    for (const [session, flow, why] of [['much', '', '"much"'], ['4', '', 'At least 1 MiB'], ['', '0', 'At least 1 byte'], ['', '-1', '"-1"'], ['99999999T', '', '500M']] as const) expect(checkChoice(chosen({ keep: { session, flow } }))).toEqual({ keep: said(why) })
  })
  test('has so many flows at once', () => {
    expect(['', ' 100 ', '1000000'].map(flowChoice)).toEqual([undefined, 100, 1_000_000])
    for (const maxFlows of ['0', '1000001', 'many', '1e3']) expect(checkChoice(chosen({ maxFlows }))).toEqual({ maxFlows: said('1 to 1000000') })
  })
  test('sends a port to one proxy', () => {
    const way = { ports: '80', kind: 'proxy2', to: '127.0.0.1:1' } as const
    expect(checkChoice(chosen({ send: [way, { ...way, kind: 'socks5' }] }))).toEqual({ send: 'Port 80 is sent to two proxies' })
  })
  test('is the same however it is typed, and another when it means something else', () => {
    const key = choiceKey(chosen({ ports: '443 80', users: 'b, a', exclude: '203.0.113.9' }))
    expect(choiceKey(chosen({ ports: '80,443/tcp', users: 'a b', exclude: '203.0.113.9/32', payload: false }))).toBe(key)
    for (const other of [{ users: 'a' }, { ports: '80' }, { netns: '7' }, { programs: 'x.service' }, { hold: false }]) expect(choiceKey(chosen({ ports: '443 80', users: 'b, a', exclude: '203.0.113.9', ...other }))).not.toBe(key)
    expect(choiceKey(chosen({ ports: 'x' }))).toBeUndefined()
  })
  test('names programs by unit, container or cgroup', () => {
    expect(['nginx', 'a.slice/b.scope', 'container:web'].map(programWord)).toEqual([{ kind: 'unit', name: 'nginx' }, { kind: 'cgroup', name: 'a.slice/b.scope' }, { kind: 'container', name: 'web' }])
  })
})
