import { describe, expect, test } from 'vitest'

import { describePlan } from '#core/plan/describePlan.ts'
import { formatHandOver, handOversBetween, parseHandOver } from '#core/plan/handOver.ts'
import { makePlan } from '#core/plan/makePlan.ts'
import { parsePlan } from '#core/plan/parsePlan.ts'

const refusal = (run: () => unknown): string => {
  try {
    run()
  } catch (error) {
    return (error as Error).message
  }
  return 'accepted'
}

describe('a hand-over as typed', () => {
  test.each(['80,8080=proxy2:127.0.0.1:8888', '1080-1090=socks5:[::1]:1080', '443=proxy2:/run/x.sock', '80=tproxy:3129'])('%s', (text) => {
    expect(formatHandOver(parseHandOver(text))).toBe(text)
  })
  test('addresses and ports get one form', () => {
    expect(formatHandOver(parseHandOver('81,80=socks5:[2001:DB8:0::1]:1080'))).toBe('80-81=socks5:[2001:db8::1]:1080')
  })
  test.each([
    ['80', 'sends nothing'], ['=proxy2:127.0.0.1:1', 'No ports'], ['0=proxy2:127.0.0.1:1', 'out of range'], ['80=http:127.0.0.1:1', 'proxy2 or socks5'],
    ['80=proxy2:127.0.0.1', 'write the proxy as'], ['80=proxy2:localhost:80', 'write the proxy as'], ['80=proxy2:127.0.0.1:0', 'write the proxy as'], ['80=proxy2:127.1:80', 'no address'],
    ['80=socks5:/run/x.sock', 'by address and port'], [`80=proxy2:/${'x'.repeat(107)}`, '107 bytes'], ['80=proxy2:/run/\u0007', 'absolute path'], ['80=proxy2:::1:80', 'write the proxy as'],
    ['80=tproxy:127.0.0.1:3129', 'by its port alone'], ['80=tproxy:0', 'by its port alone'], ['80=tproxy:65536', 'by its port alone'], ['80=tproxy:', 'by its port alone'],
    ['80=tproxy:50080', 'the relay’s own'], ['80=tproxy:50122', 'the relay’s own'],
  ])('%s is refused', (text, why) => {
    expect(refusal(() => makePlan({ tcp: '', send: [text] }))).toContain(why)
  })
})

describe('in a plan', () => {
  test('its ports are intercepted, and parsing again changes nothing', () => {
    const plan = makePlan({ tcp: '443', send: ['81,80=socks5:127.0.0.1:1080', '22=proxy2:/run/x.sock', '8080=tproxy:3129'] })
    expect(plan.tcp).toEqual([{ from: 22, to: 22 }, { from: 80, to: 81 }, { from: 443, to: 443 }, { from: 8080, to: 8080 }])
    expect(plan.handOver.map(formatHandOver)).toEqual(['22=proxy2:/run/x.sock', '80-81=socks5:127.0.0.1:1080', '8080=tproxy:3129'])
    expect(parsePlan(JSON.parse(JSON.stringify(plan)))).toEqual(plan)
  })
  test('a port goes to one proxy', () => {
    expect(refusal(() => makePlan({ tcp: '', send: ['80=socks5:127.0.0.1:1080', '79-81=socks5:127.0.0.1:1081'] }))).toContain('two proxies')
  })
  test('hostile shapes are refused', () => {
    const plan = makePlan({ tcp: '80' })
    for (const to of [{ kind: 'tproxy', address: '127.0.0.1', port: 1 }, { kind: 'socks5', path: '/x' }, { kind: 'proxy-v2', path: 'x' }, { kind: 'proxy-v2', path: '/x', port: 1 }, { kind: 'tproxy', port: 0 }, { kind: 'tproxy' }, { kind: 'tproxy', path: '/x' }, { kind: 'http', port: 1 }, { kind: 'socks5', address: '10.0.0.0/8', port: 1 }]) {
      expect(refusal(() => parsePlan({ ...plan, handOver: [{ ports: [{ from: 80, to: 80 }], to }] }))).not.toBe('accepted')
    }
    expect(refusal(() => parsePlan({ ...plan, handOver: [{ ports: [{ from: 81, to: 80 }], to: { kind: 'socks5', address: '127.0.0.1', port: 1 } }] }))).toContain('backwards')
  })
  test('is said in words', () => {
    expect(describePlan(makePlan({ tcp: '', send: ['80=socks5:[::1]:1080'] })).join(' ')).toContain('What is meant for TCP port 80 goes to the SOCKS server at [::1]:1080 instead')
    expect(describePlan(makePlan({ tcp: '', send: ['80=tproxy:3129'] })).join(' ')).toContain('the proxy in TPROXY mode at port 3129 of this computer')
  })
})

describe('while rules for others come into force', () => {
  const between = (before: readonly string[], after: readonly string[]): string[] => handOversBetween(before.map(parseHandOver), after.map(parseHandOver)).map(formatHandOver)
  test.each([
    [[], [], []],
    [['80=socks5:127.0.0.1:1'], [], []],
    [[], ['80=socks5:127.0.0.1:1'], ['80=socks5:127.0.0.1:1']],
    // Only the rules that come reach that proxy.
    [[], ['80=tproxy:3129'], []],
    [['80=tproxy:3129'], ['80=socks5:127.0.0.1:1'], ['80=socks5:127.0.0.1:1']],
    [['70-90=socks5:127.0.0.1:1'], ['80,100=tproxy:3129', '90=proxy2:/run/x'], ['80=socks5:127.0.0.1:1', '90=proxy2:/run/x']],
    [['80=tproxy:3129'], ['80=tproxy:3130'], ['80=tproxy:3129']],
  ])('%j to %j: %j', (before, after, there) => {
    expect(between(before, after)).toEqual(there)
  })
})
