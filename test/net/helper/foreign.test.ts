import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { describe, expect, test } from 'vitest'

import type { Backend } from '#core/plan/plan.ts'

import { ask, expectClean, expectDirect, openGate, planFor, snapshot } from './harness.ts'
import type { TestHelper } from './harness.ts'
import { failingBatches, olderTool } from './olderTools.ts'
import { before, lab, programs, start } from './stage.ts'

/** Somebody else's tools change what is ours while the gate is open: it is said, and put back; or the gate closes and says why. */
let helper: TestHelper

const router = async (...argv: string[]): Promise<void> => {
  await lab.exec('router', argv, { reject: false })
}
const script = (text: string): Promise<void> => router('sh', '-c', text)

/** One process a family, and not until none is left: what is put back meanwhile would be taken again and again, and who takes for seconds is no event but a fight. */
const takeRules = 'for f in -4 -6; do ip $f rule | sed -n "/proto 77/s/.*/rule del protocol 77/p" | ip $f -force -batch -; done'

/** By backend: what others do, and what of ours the warnings must name: two, where the act takes two steps and the watch looked between them. */
type Interference = readonly [title: string, names: RegExp, act: () => Promise<void>]
const onRoutes: readonly Interference[] = [
  ['ip rule del of one rule', /ip rule fwmark 0x10000000 lookup 7701 \(IPv4\)/, () => router('ip', 'rule', 'del', 'pref', '0', 'fwmark', '0x10000000/0x10000000')],
  ['ip -6 rule del of the middle one', /ip rule fwmark 0x2000000 iif lo lookup main \(IPv6\)/, () => router('ip', '-6', 'rule', 'del', 'pref', '0', 'iif', 'lo', 'fwmark', '0x2000000/0x2000000')],
  ['ip rule flush of all that bear our protocol, as systemd-networkd removes foreign ones', /ip rule .*\(IPv4\).*ip rule .*\(IPv6\)|and \d more/, () => script(takeRules)],
  ['ip route flush table', /the route of table 7701 \(IPv4\)/, () => router('ip', 'route', 'flush', 'table', '7701')],
  ['ip -6 route flush table', /the route of table 7701 \(IPv6\)/, () => router('ip', '-6', 'route', 'flush', 'table', '7701')],
]
const onIptables = (kind: 'nft' | 'legacy'): readonly Interference[] => [
  ['iptables -F', /SLUICE_.*IPv4/, () => script(`iptables-${kind} -t mangle -F`)],
  ['iptables -F of both families, chains deleted, too', /all chains SLUICE_\* \(IPv4\).*all chains SLUICE_\* \(IPv6\)|all chains SLUICE_\* \(IPv4\).*and \d more/, () => script(`for t in iptables-${kind} ip6tables-${kind}; do printf '*mangle\\n-F\\n-X\\nCOMMIT\\n' | $t-restore --noflush; done`)],
  ['one jump deleted', /the jump from PREROUTING \(IPv6\)/, () => script(`ip6tables-${kind} -t mangle -D PREROUTING -j SLUICE_PRE`)],
  ['a saved firewall reloaded over everything', /all chains SLUICE_\* \(IPv4\)/, () => script(`printf '*mangle\\n:PREROUTING ACCEPT [0:0]\\n:INPUT ACCEPT [0:0]\\n:FORWARD ACCEPT [0:0]\\n:OUTPUT ACCEPT [0:0]\\n:POSTROUTING ACCEPT [0:0]\\nCOMMIT\\n' | iptables-${kind}-restore`)],
]
const flush: Interference = ['nft flush ruleset', /inet sluice|all chains SLUICE_/, () => router('nft', 'flush', 'ruleset')]
const cases: Readonly<Record<string, { readonly backend: Backend; readonly owner: boolean; readonly acts: readonly Interference[] }>> = {
  nft: { backend: 'nft', owner: true, acts: onRoutes },
  'nft without owned tables': { backend: 'nft', owner: false, acts: [flush, ['nft delete table', /the nft table inet sluice/, () => router('nft', 'delete', 'table', 'inet', 'sluice')], ['nft flush chain', /something in the nft table inet sluice/, () => router('nft', 'flush', 'chain', 'inet', 'sluice', 'take')]] },
  iptables: { backend: 'iptables', owner: false, acts: [...onRoutes.slice(2, 4), ...onIptables('nft'), flush] },
  'iptables-legacy': { backend: 'iptables-legacy', owner: false, acts: [...onRoutes.slice(2, 4), ...onIptables('legacy')] },
}

async function open(backend: Backend, owner: boolean): Promise<void> {
  helper = start(owner || backend !== 'nft' ? [] : olderTool(programs.folder, 'nft', 'flags owner'))
  await openGate(helper, programs, backend)
  await relayed()
}
async function relayed(): Promise<void> {
  for (const from of ['client', 'router'] as const) for (const family of ['ipv4', 'ipv6'] as const) expect(await ask(lab, from, family, 8080)).toMatchObject({ ok: true, relayed: true })
}
/** All that was said of rules put back, until it names what it must; else the test runs out of time. */
async function said(names: RegExp): Promise<void> {
  await helper.event('warning', () => names.test(allSaid()))
}
const allSaid = (): string => helper.events.flatMap((event) => (event.event === 'warning' && event.code === 'rules-restored' ? [event.message] : [])).join(' ')
// Of iptables' TPROXY nft names only those of the family that it lists first, which is the one made first.
const rules = async (): Promise<string[]> => (await snapshot(lab)).replaceAll('xt target TPROXY', '').split('\n')
/** Lines that were there and are not; in any order, since a table made anew is listed behind those that stayed. What others put there is theirs. */
async function missing(held: readonly string[]): Promise<string[]> {
  const now = await rules()
  return held.filter((line) => {
    const at = now.indexOf(line)
    if (at !== -1) now.splice(at, 1)
    return at === -1
  })
}

describe.each(Object.entries(cases))('%s', (_name, { backend, owner, acts }) => {
  test.each(acts)('%s: said and put back', async (_title, names, act) => {
    await open(backend, owner)
    const held = await rules()
    await act()
    await said(names)
    await expect.poll(() => missing(held), { timeout: 15_000 }).toEqual([])
    await relayed()
    await helper.end()
    await expectClean(lab, before, [])
    await expectDirect(lab)
  })

  test('a relayed flow lives through it', async () => {
    await open(backend, owner)
    const peer = lab.peer('client', 'talk', '203.0.113.2', '8080')
    await peer.event(({ event }) => event === 'line')
    const [, , act] = acts.at(-1) as Interference
    await act()
    await helper.event('warning', ({ code }) => code === 'rules-restored')
    peer.write('send still here')
    await peer.event(({ line }) => line === 'still here')
    await helper.end()
  })

  test('taken away again and again: the gate closes in good order and says so', async () => {
    await open(backend, owner)
    const done = helper.event('closed')
    let over = false
    void done.then(() => (over = true))
    const [, names, act] = acts[0] as Interference
    const held = await rules()
    while (!over) {
      await act()
      // Until it is back, or the gate is closed.
      await expect.poll(async () => over || (await missing(held)).length === 0, { timeout: 20_000, interval: 50 }).toBe(true)
    }
    const { failure } = await done
    expect(failure).toMatchObject({ code: 'rules-taken' })
    expect(`${allSaid()} ${failure?.message ?? ''}`).toMatch(names)
    expect(failure?.message).toMatch(/third time in ten seconds/)
    await helper.end()
    await expectClean(lab, before)
    await expectDirect(lab)
  })
})

test.each([
  ['twice, as beside somebody who is not done taking away: put back', 2],
  ['always: the gate closes and says so', 1000],
])('what is taken away cannot be put back %s', async (_title, times) => {
  const { within, failures } = failingBatches(programs.folder)
  helper = start(within)
  await openGate(helper, programs, 'nft')
  writeFileSync(failures, String(times))
  await onRoutes[0]?.[2]()
  if (times === 2) {
    await said(/ip rule fwmark 0x10000000 lookup 7701 \(IPv4\)/)
    await relayed()
    await helper.end()
  } else {
    const { failure } = await helper.event('closed')
    expect(failure).toMatchObject({ code: 'rules-taken', message: expect.stringMatching(/ip rule fwmark 0x10000000 lookup 7701 \(IPv4\).*cannot be put back/) as string })
    await helper.end()
  }
  await expectClean(lab, before, [])
  await expectDirect(lab)
})

test.each([
  ['nft without owned tables', 'nft', 'tproxy |flags owner', 'nft flush ruleset', /the nft table inet sluice/],
  ['iptables', 'iptables', 'TPROXY', 'iptables-nft -t nat -F', /SLUICE_.*IPv4/],
  ['iptables-legacy', 'iptables-legacy', ' socket --transparent', 'iptables-legacy -t nat -F', /SLUICE_.*IPv4/],
] as const)('%s that redirects: what translates is flushed, as when Docker starts anew; said and put back', async (_title, backend, refuses, act, names) => {
  helper = start(olderTool(programs.folder, backend, refuses))
  await openGate(helper, programs, backend, { tcp: '8080' }, [{ backend, usable: true, redirectsBecause: 'Error: Operation not supported' }])
  const held = await rules()
  await script(act)
  await said(names)
  await expect.poll(() => missing(held), { timeout: 15_000 }).toEqual([])
  await helper.end()
  await expectClean(lab, before, [])
  await expectDirect(lab)
})

test('nft without owned tables: what is taken away just after a change of ours is not taken for how that left it', async () => {
  const now = join(programs.folder, 'take-now')
  helper = start(olderTool(programs.folder, 'nft', 'flags owner', undefined, `if [[ -e ${now} ]]; then rm ${now}; "$real" delete table inet sluice; fi`))
  await openGate(helper, programs, 'nft')
  writeFileSync(now, '')
  await helper.request('change', planFor({ backend: 'nft', tcp: '8080' }))
  await said(/the nft table inet sluice/)
  await relayed()
  await helper.end()
  await expectClean(lab, before, [])
})

test('nft names who it was', async () => {
  await open('iptables', false)
  await router('iptables-nft', '-t', 'mangle', '-F')
  expect((await helper.event('warning', ({ code }) => code === 'rules-restored')).message).toMatch(/\(iptables-nft, process \d+\); it was put back/)
})

test('our own changes are nobody\'s deed: of a route that is lost no process is named', async () => {
  await open('iptables', false)
  await helper.request('change', planFor({ backend: 'iptables', tcp: '8080', scope: ['forwarded'] }))
  await router('ip', 'route', 'flush', 'table', '7701')
  expect((await helper.event('warning', ({ code }) => code === 'rules-restored')).message).toMatch(/the route of table 7701 \(IPv4\); it was put back/)
})

test('an owned table is not anybody else\'s to flush: nothing is lost, so nothing is said', async () => {
  await open('nft', true)
  const held = await rules()
  await router('nft', 'flush', 'ruleset')
  expect(await rules()).toEqual(held)
  await relayed()
  // A computer that is busy for seconds has its guard replaced, and says so.
  expect(helper.events.filter((event) => event.event === 'warning' && event.code !== 'guard-replaced')).toEqual([])
})
