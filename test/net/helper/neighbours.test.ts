import { existsSync } from 'node:fs'
import { beforeEach, describe, expect, test } from 'vitest'

import type { Failure } from '#core/contract/failure.ts'
import { parseMarks } from '#core/plan/parseMarks.ts'
import { labAddresses } from '#test/lab/makeLab.ts'

import { ask, expectClean, openGate, planFor, snapshot, withoutLease } from './harness.ts'
import type { TestHelper } from './harness.ts'
import { lab, programs, start } from './stage.ts'

/** Other people's rules stand there first: what works beside them is shown by packets, what cannot is said before, with the mend. */
let helper: TestHelper

beforeEach(() => {
  helper = start()
})

const router = async (script: string): Promise<void> => {
  await lab.exec('router', ['sh', '-ec', script])
}
const everyWay = [['client', 'ipv4'], ['client', 'ipv6'], ['router', 'ipv4'], ['router', 'ipv6']] as const
async function expectRelayed(): Promise<void> {
  for (const [place, family] of everyWay) expect(await ask(lab, place, family, 8080), `${place} ${family}`).toMatchObject({ ok: true, relayed: true })
}

/** Without what is renewed, and what only lists. */
const withoutPassing = (rules: string): string => withoutLease(rules).replace(/(set lease \{\n[^}]*?)\t\telements = \{[^}]*\}\n/g, '$1')

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  // Neighbours speak the same tool, as they do on a machine that has but one; of what concerns ip rules alone, or others' tools, two backends are witnesses enough.
  const kind = backend === 'iptables-legacy' ? 'legacy' : 'nft'
  const onTwo = test.runIf(kind === 'nft')

  test('masquerade: the server goes on seeing the router\'s address', async () => {
    await router(`iptables-${kind} -t nat -A POSTROUTING -o sv0 -j MASQUERADE; ip6tables-${kind} -t nat -A POSTROUTING -o sv0 -j MASQUERADE`)
    const before = await snapshot(lab)
    await openGate(helper, programs, backend)
    await expectRelayed()
    for (const family of ['ipv4', 'ipv6'] as const) expect(await ask(lab, 'client', family, 8080)).toMatchObject({ seenAddress: labAddresses[family].routerToServer })
    await helper.end()
    await expectClean(lab, before)
  })

  test('published ports, as Docker makes them: they work, and are seen on nft as the container\'s', async () => {
    await router(`iptables-${kind} -t nat -A PREROUTING -i cl0 -p tcp --dport 8088 -j DNAT --to-destination ${labAddresses.ipv4.server}:8080; iptables-${kind} -t nat -A POSTROUTING -o sv0 -j MASQUERADE; iptables-${kind} -P FORWARD DROP; iptables-${kind} -A FORWARD -i cl0 -o sv0 -j ACCEPT; iptables-${kind} -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT`)
    const before = await snapshot(lab)
    await openGate(helper, programs, backend)
    const flows = helper.events.length
    const peer = lab.peer('client', 'ask', labAddresses.ipv4.routerToClient, '8088')
    expect(await peer.event(() => true)).toMatchObject({ ok: true, server: 'origin' })
    if (backend === 'nft') await helper.event('flows', ({ total }) => total >= 1)
    else expect(helper.events.slice(flows).some((event) => event.event === 'flows' && event.total > 0)).toBe(false)
    await expectRelayed()
    await helper.end()
    await expectClean(lab, before)
  })

  test('WireGuard and Tailscale: their marks, rules, src_valid_mark and a strict reverse path', async () => {
    await router(`for f in src_valid_mark rp_filter; do for d in all cl0 sv0 lo; do echo 1 > /proc/sys/net/ipv4/conf/$d/$f; done; done
      for f in -4 -6; do
        ip $f rule add pref 5210 fwmark 0x80000/0xff0000 lookup main; ip $f rule add pref 5230 fwmark 0x80000/0xff0000 lookup default
        ip $f rule add pref 5250 fwmark 0x80000/0xff0000 unreachable; ip $f rule add pref 5270 lookup 52
        ip $f rule add pref 32764 lookup main suppress_prefixlength 0; ip $f rule add pref 32765 not fwmark 0xca6c lookup 51820
        ip $f route add default dev sv0 table 51820
      done`)
    const before = await snapshot(lab)
    // With src_valid_mark SYNs are not held (machine facts), and so stand in no digest.
    await openGate(helper, programs, backend, { hold: false })
    await expectRelayed()
    await helper.end()
    await expectClean(lab, before)
  })

  test('a VPN tool makes lo strict while open: devices\' connections go on, old and new, said so, and wait again when it has gone', async () => {
    const before = await snapshot(lab)
    const ruleset = async (): Promise<string> => (await lab.exec('router', ['sh', '-c', kind === 'nft' ? 'nft -s list ruleset' : 'iptables-legacy-save; ip6tables-legacy-save'])).stdout.replace(/^#.*\n| \[\d+:\d+\]$/gm, '')
    const makeStrict = (value: number): Promise<void> => router(`for f in src_valid_mark rp_filter; do echo ${String(value)} > /proc/sys/net/ipv4/conf/all/$f; done`)
    // A connection that waits keeps its port, one that does not cannot.
    const expectPorts = async (relayed: boolean): Promise<void> => {
      for (const family of ['ipv4', 'ipv6'] as const) {
        expect(await ask(lab, 'client', family, 8080)).toMatchObject({ ok: true, relayed })
        expect(await ask(lab, 'router', family, 8080)).toMatchObject({ ok: true, relayed: true })
      }
    }
    await openGate(helper, programs, backend, { keepPort: true })
    await expectPorts(false)
    const opened = await ruleset()
    const peer = lab.peer('client', 'talk', labAddresses.ipv4.server, '8080')
    await peer.event(({ event }) => event === 'line')
    await makeStrict(1)
    expect((await helper.event('warning', ({ code }) => code === 'strict-lo')).message).toContain('no longer wait')
    await expectPorts(true)
    peer.write('send still here')
    await peer.event(({ line }) => line === 'still here')
    await makeStrict(0)
    await helper.event('warning', ({ code }) => code === 'lenient-lo')
    expect(withoutPassing(await ruleset())).toBe(withoutPassing(opened))
    await expectPorts(false)
    await helper.end()
    await expectClean(lab, before)
  })

  onTwo('a firewall that drops what comes in starts while open: said with a mend that mends; and when devices are added', async () => {
    const before = await snapshot(lab)
    await openGate(helper, programs, backend, { hold: false, scope: ['local'] })
    await router('nft add table inet theirs; nft "add chain inet theirs input { type filter hook input priority filter; policy drop; }"; nft add rule inet theirs input ct state established,related accept; nft add rule inet theirs input iifname lo accept; nft add rule inet theirs input meta l4proto icmpv6 accept')
    expect(await ask(lab, 'router', 'ipv4', 8080)).toMatchObject({ ok: true, relayed: true })
    await helper.request('change', planFor({ backend, hold: false }))
    const { message } = await helper.event('warning', ({ code }) => code === 'firewall')
    const mend = /`sudo ([^`]+)`/.exec(message)?.[1] ?? ''
    await router(mend)
    await expectRelayed()
    await router('nft add table inet others; nft "add chain inet others input { type filter hook input priority filter; policy drop; }"')
    expect((await helper.event('warning', ({ code, message: text }) => code === 'firewall' && text.includes('inet others input'))).message).not.toContain('theirs')
    await router('nft delete table inet theirs; nft delete table inet others')
    await expectRelayed()
    await helper.end()
    await expectClean(lab, before)
  })

  onTwo('marks of others: refused before anything is done, naming the rule and what is free; which then works', async () => {
    await router('ip rule add pref 100 fwmark 0x10000000/0x30000000 lookup main')
    const before = await snapshot(lab)
    const refused = await openGate(helper, programs, backend).catch((error: unknown) => error as { code: string; message: string })
    expect(refused).toMatchObject({ code: 'marks-taken' })
    const { message } = refused as { message: string }
    expect(message).toContain('"100: fwmark 0x10000000/0x30000000 lookup 254" (IPv4)')
    const marks = /--marks (\S+)$/.exec(message)?.[1]?.split(',').map(Number) ?? []
    expect(await snapshot(lab)).toBe(before)
    const [forwarded = 0, local = 0, uplink = 0] = marks
    await openGate(helper, programs, backend, { marks: { forwarded, local, uplink } })
    await expectRelayed()
    await helper.end()
    await expectClean(lab, before)
  })

  onTwo('a routing table in use: refused, and another one works', async () => {
    await router('ip route add 192.0.2.0/24 dev sv0 table 7701; ip -6 rule add pref 200 from 2001:db8:77::/64 lookup 7702')
    const before = await snapshot(lab)
    const refused = await openGate(helper, programs, backend).catch((error: unknown) => error as { code: string; message: string })
    expect(refused).toMatchObject({ code: 'table-taken' })
    expect((refused as { message: string }).message).toMatch(/192\.0\.2\.0\/24 dev sv0.*free is --table 7703$/)
    await openGate(helper, programs, backend, { table: 7703 })
    await expectRelayed()
    await helper.end()
    await expectClean(lab, before)
  })

  const firewalls: readonly (readonly [string, string, number])[] = [
    ['as ufw has it', 'for t in iptables-nft ip6tables-nft; do $t -A INPUT -i lo -j ACCEPT; $t -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT; $t -A INPUT -p icmpv6 -j ACCEPT || $t -A INPUT -p icmp -j ACCEPT; $t -P INPUT DROP; done', 2],
    ['as firewalld has it', 'nft add table inet firewalld; nft "add chain inet firewalld filter_INPUT { type filter hook input priority filter + 10; policy accept; }"; for r in "ct state established,related accept" "iifname lo accept" "meta l4proto icmpv6 accept" "reject with icmpx admin-prohibited"; do nft add rule inet firewalld filter_INPUT $r; done', 1],
    ['with the old iptables', 'for t in iptables-legacy ip6tables-legacy; do $t -A INPUT -i lo -j ACCEPT; $t -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT; $t -P INPUT DROP; done; ip6tables-legacy -A INPUT -p icmpv6 -j ACCEPT', 2],
  ]
  test.each(kind === 'nft' ? firewalls : firewalls.slice(2))('a firewall that drops what comes in, %s: said, with a mend that mends', async (_kind, rules, count) => {
    await router(rules)
    await openGate(helper, programs, backend, { hold: false })
    const { message } = await helper.event('warning', ({ code }) => code === 'firewall')
    expect(await ask(lab, 'client', 'ipv4', 8080, 1000)).toMatchObject({ ok: false })
    expect(await ask(lab, 'router', 'ipv4', 8080)).toMatchObject({ ok: true, relayed: true })
    const mends = [...message.matchAll(/`sudo ([^`]+)`/g)].map((match) => match[1] ?? '')
    expect(mends).toHaveLength(count)
    for (const mend of mends) await router(mend)
    await expectRelayed()
    await helper.request('close', {})
    // Mended, it is no longer spoken of.
    const again = start()
    await openGate(again, programs, backend, { hold: false })
    expect(again.events.some((event) => event.event === 'warning' && event.code === 'firewall')).toBe(false)
    await again.end()
  })

  test('no IPv6 on any interface: IPv4 is intercepted all the same', async () => {
    await router('for d in all default lo cl0 sv0; do echo 1 > /proc/sys/net/ipv6/conf/$d/disable_ipv6; done')
    const before = await snapshot(lab)
    await openGate(helper, programs, backend)
    for (const place of ['client', 'router'] as const) expect(await ask(lab, place, 'ipv4', 8080)).toMatchObject({ ok: true, relayed: true })
    await helper.end()
    await expectClean(lab, before)
  })
})

test.each([
  ['nft', { prerouting: -120, output: -160, rule: 100 }],
  ['iptables', { rule: 100 }],
  ['iptables-legacy', { rule: 100 }],
] as const)('%s: other priorities than the usual, and all is taken back after a crash', async (backend, priority) => {
  const before = await snapshot(lab)
  await openGate(helper, programs, backend, { priority })
  await expectRelayed()
  const opened = await snapshot(lab)
  expect(opened).toMatch(/^100:\tfrom all fwmark 0x10000000\/0x10000000 lookup 7701/m)
  // nft names what is near to a usual one.
  if (backend === 'nft') for (const hook of [/hook prerouting priority (?:-120|dstnat - 20);/, /hook output priority (?:-160|mangle - 10);/]) expect(opened).toMatch(hook)
  helper.kill()
  await expectClean(lab, before)
})

/** As wg-quick, Tailscale, kube-proxy (with Docker's and Podman's masquerade) write them, by each tool. */
const markRules = {
  nft: `nft -f - <<'END'
    table inet wg-quick-wg0 {
      chain premangle { type filter hook prerouting priority -150; meta l4proto udp meta mark set ct mark; }
      chain postmangle { type filter hook postrouting priority -150; meta l4proto udp meta mark 0xca6c ct mark set meta mark; }
    }
    table inet theirs {
      chain ts-forward { meta mark set meta mark & 0xff00ffff | 0x40000; meta mark & 0xff0000 == 0x40000 accept; }
      chain forward { type filter hook forward priority filter; iifname "tailscale0" jump ts-forward; }
      chain mark-for-masquerade { meta mark set meta mark | 0x4000; }
      chain postrouting { type nat hook postrouting priority srcnat; meta mark & 0x4000 != 0x4000 return; meta mark set meta mark ^ 0x4000; masquerade fully-random; }
    }
END`,
  iptables: iptablesMarks('nft'),
  'iptables-legacy': iptablesMarks('legacy'),
} as const
function iptablesMarks(kind: 'nft' | 'legacy'): string {
  return `for t in iptables-${kind} ip6tables-${kind}; do
    $t -t mangle -A PREROUTING -p udp -j CONNMARK --restore-mark; $t -t mangle -A POSTROUTING -p udp -m mark --mark 0xca6c -j CONNMARK --save-mark
    $t -N ts-forward; $t -I FORWARD -j ts-forward; $t -A ts-forward -i tailscale0 -j MARK --set-mark 0x40000/0xff0000; $t -A ts-forward -m mark --mark 0x40000/0xff0000 -j ACCEPT
    $t -t nat -N KUBE-MARK-MASQ; $t -t nat -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000; $t -t nat -N KUBE-POSTROUTING; $t -t nat -A POSTROUTING -j KUBE-POSTROUTING
    $t -t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN; $t -t nat -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000; $t -t nat -A KUBE-POSTROUTING -j MASQUERADE --random-fully
  done`
}
/** One that is in our way, and who it is. */
const inOurWay = {
  nft: ['nft "add chain inet theirs vpn { type filter hook output priority -140; meta mark set meta mark & 0xf0ffffff | 0x3000000; }"', 'inet theirs vpn'],
  iptables: ['ip6tables-nft -t mangle -A OUTPUT -d 2001:db8:9::/64 -j MARK --set-xmark 0x10000000/0x30000000', 'iptables mangle OUTPUT (IPv6)'],
  'iptables-legacy': ['iptables-legacy -t mangle -A PREROUTING -s 192.0.2.1 -j CONNMARK --set-mark 0x2000000', 'iptables-legacy mangle PREROUTING (IPv4)'],
} as const

test.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s: rules of others that write marks of their own are no matter, one that writes ours is named before anything is done, with marks that are free', async (backend) => {
  await router(markRules[backend])
  const before = await snapshot(lab)
  await openGate(helper, programs, backend)
  await expectRelayed()
  await helper.end()
  await expectClean(lab, before)
  const [rule, who] = inOurWay[backend]
  await router(rule)
  const between = await snapshot(lab)
  const refused = start()
  const failure = await openGate(refused, programs, backend).then(() => undefined, (error: unknown) => error as Failure)
  expect(failure).toMatchObject({ code: 'marks-taken' })
  expect(failure?.message).toContain(who)
  await refused.end()
  expect(await snapshot(lab)).toBe(between)
  const marks = parseMarks(/--marks (\S+)/.exec(failure?.message ?? '')?.[1] ?? '')
  const other = start()
  await openGate(other, programs, backend, { marks })
  await expectRelayed()
  await other.end()
  await expectClean(lab, between)
})

/** What takes a mark of ours away once it is set, and what that does to a program's connection is seen by packets. */
const unmarking = {
  nft: ['nft "add table inet vpn; add chain inet vpn out { type route hook output priority -100; tcp dport 8080 meta mark set meta mark & 0xcfffffff; }"', 'in inet vpn out, bits 0x30000000'],
  iptables: ['for t in iptables-nft ip6tables-nft; do $t -t mangle -A OUTPUT -p tcp --dport 8080 -j MARK --set-xmark 0/0x30000000; done', 'in iptables mangle OUTPUT (IPv4), bits 0x30000000'],
  'iptables-legacy': ['for t in iptables-legacy ip6tables-legacy; do $t -t mangle -A OUTPUT -p tcp --dport 8080 -j MARK --set-xmark 0/0x30000000; done', 'in iptables-legacy mangle OUTPUT (IPv4), bits 0x30000000'],
} as const

test.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s: rules of others that come while the gate is open and use marks of ours are told, each once, with marks that are free', async (backend) => {
  const told = (): string[] => helper.events.flatMap((event) => (event.event === 'warning' && event.code === 'marks-taken' ? [event.message] : []))
  await openGate(helper, programs, backend, { hold: false, scope: ['local'] })
  expect(await ask(lab, 'router', 'ipv4', 8080)).toMatchObject({ ok: true, relayed: true })
  // Some are no matter.
  await router(markRules[backend])
  const [rule, who] = unmarking[backend]
  await router(rule)
  await helper.event('warning', ({ code, message }) => code === 'marks-taken' && message.includes(who))
  for (const message of told()) expect(message).toMatch(/^A rule of somebody else's that came while the gate is open writes mark bits of Sluice's: in \S.* bits 0x30000000\. .*\(--marks 0x[0-9a-f]+,0x[0-9a-f]+,0x[0-9a-f]+\)\.$/)
  // It was true: nothing of this comes to the relay any more.
  expect(await ask(lab, 'router', 'ipv4', 8080)).toMatchObject({ ok: true, relayed: false })
  if (backend !== 'nft') return
  await router('ip rule add pref 100 fwmark 0x10000000/0x30000000 lookup main')
  await helper.event('warning', ({ code, message }) => code === 'marks-taken' && message.includes('"100: fwmark 0x10000000/0x30000000 lookup 254" (IPv4)'))
  // What was told is not told again by the look that told this.
  expect(told().length).toBe(2)
  await helper.end()
})

describe.runIf(existsSync('/proc/sys/net/bridge')).each(['nft', 'iptables', 'iptables-legacy'] as const)('%s, behind a bridge that calls the rules of IP, as Docker has it', (backend) => {
  const { ipv4, ipv6 } = labAddresses
  const callRules = (value: 0 | 1): Promise<void> => router(`for f in iptables ip6tables; do echo ${String(value)} > /proc/sys/net/bridge/bridge-nf-call-$f; done`)
  const warnings = (by: TestHelper, code: string): number => by.events.filter((event) => event.event === 'warning' && event.code === code).length
  const expectDatagrams = async (relayed: boolean): Promise<void> => {
    for (const family of ['ipv4', 'ipv6'] as const) {
      const answer = await lab.peer('client', 'ask', labAddresses[family].server, '5300', '--udp').event(() => true)
      expect(answer, family).toMatchObject({ ok: true })
      expect(answer['seenPort'] !== answer['localPort'], family).toBe(relayed)
    }
  }
  const expectConnections = async (relayed: boolean): Promise<void> => {
    for (const family of ['ipv4', 'ipv6'] as const) expect(await ask(lab, 'client', family, 8080), family).toMatchObject({ ok: true, relayed })
  }

  beforeEach(async () => {
    await router(`ip link add br0 type bridge; ip link set br0 up; ip addr del ${ipv4.routerToClient}/24 dev cl0; ip -6 addr del ${ipv6.routerToClient}/64 dev cl0; ip link set cl0 master br0; ip addr add ${ipv4.routerToClient}/24 dev br0; ip -6 addr add ${ipv6.routerToClient}/64 dev br0 nodad`)
    await callRules(1)
    for (const host of [ipv4.server, ipv6.server]) await lab.peer('server', 'serve', 'origin', '5300', '--udp', '--host', host).event(({ event }) => event === 'listening')
  })

  test('connections that wait are relayed; UDP is left alone and said so; both are taken when bridges cease to, and left alone again', async () => {
    await openGate(helper, programs, backend)
    await expectConnections(true)
    expect(warnings(helper, 'bridges')).toBe(0)
    await helper.request('change', planFor({ backend, udp: '5300' }))
    expect((await helper.event('warning', ({ code }) => code === 'bridges')).message).toMatch(/br0, and bridge-nf-call-iptables is on.*are left alone.*sysctl net\.bridge\.bridge-nf-call-iptables=0/)
    await expectDatagrams(false)
    await expectConnections(true)
    await callRules(0)
    await helper.event('warning', ({ code }) => code === 'bridges-gone')
    await expectDatagrams(true)
    await expectConnections(true)
    await callRules(1)
    await expect.poll(() => warnings(helper, 'bridges'), { timeout: 10_000 }).toBe(2)
    await expectDatagrams(false)
    await expectConnections(true)
    await helper.end()
  })

  test('connections that do not wait are left alone and said so; of this computer’s own nothing is', async () => {
    await openGate(helper, programs, backend, { hold: false })
    await helper.event('warning', ({ code }) => code === 'bridges')
    await expectConnections(false)
    expect(await ask(lab, 'router', 'ipv4', 8080)).toMatchObject({ ok: true, relayed: true })
    await helper.end()
    const local = start()
    await openGate(local, programs, backend, { udp: '5300', scope: ['local'] })
    expect(warnings(local, 'bridges')).toBe(0)
    await local.end()
  })
})
