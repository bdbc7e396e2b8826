import { describe, expect, test } from 'vitest'

import { unifiedPatch } from '#cli/unifiedPatch.ts'
import { trimChange } from '#core/rules/trimChange.ts'

import { expectClean, makeSession, openArguments, snapshot } from './harness.ts'
import type { TestHelper } from './harness.ts'
import { lab, programs, start } from './stage.ts'

/** What `preview` promises is what `open` does, whatever stands there already. */
let helper: TestHelper

/** As the machine's own tools list it, without what changes by itself: counters, times, elements that time out. */
async function listing(title: string): Promise<string> {
  const [command = '', ...args] = title.split(' ')
  const words = command === 'nft' ? ['--stateless', ...args] : args
  const { stdout } = await lab.exec('router', [command, ...words], { reject: false })
  // Sockets that are there, the relay's own among them, are left alone for half a minute.
  if (command === 'nft') return stdout.replace(/^(\tset (?:lease|old_udp_ports) \{\n[^}]*?)\t\telements = \{[^}]*\}\n/gm, '$1')
  return command === 'ip' ? stdout : stdout.split('\n').filter((line) => line !== '' && !/^#|-m multiport --sports /.test(line)).map((line) => `${line.replace(/ \[\d+:\d+\]$/, '').replace(/( --datestop) \S+/, '$1 RENEWED')}\n`).join('')
}

const neighbours = {
  'nobody else': '',
  'others’ rules': `nft -f - <<'END'
table inet filter { chain input { type filter hook input priority 0; policy accept; tcp dport 22 accept; }; }
table ip6 other { set s { type ipv6_addr; elements = { 2001:db8::1, 2001:db8::2 }; }; }
END
for t in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do
  $t -t mangle -N OTHER; $t -t mangle -A PREROUTING -p tcp --dport 22 -j OTHER; $t -t mangle -A OTHER -j RETURN; $t -t mangle -A POSTROUTING -p udp -j OTHER
done
for f in -4 -6; do ip $f rule add pref 0 fwmark 0x1/0x1 lookup 100; ip $f rule add pref 5000 fwmark 0x2/0x2 lookup main; done`,
} as const

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  test.each(Object.entries(neighbours))('beside %s', async (_name, script) => {
    await lab.exec('router', ['sh', '-ec', script])
    const before = await snapshot(lab)
    helper = start()
    await helper.request('hello', { protocol: 1 })
    const wish = openArguments(makeSession(programs, 'preview'), backend, { udp: '53', exclude: ['203.0.113.128/25'], users: [1000] })
    const { parts, digest, backend: chosen } = await helper.request('preview', { plan: wish.plan })
    expect({ digest, chosen }).toEqual({ digest: wish.digest, chosen: backend })
    // Asking changed nothing; listing old iptables would have made its tables.
    expect(await snapshot(lab)).toBe(before)
    expect(parts.length).toBe(backend === 'nft' ? 5 : 6)
    const wholes: string[] = []
    for (const { title } of parts) wholes.push(script === '' && title.includes('legacy') ? '' : await listing(title))
    await helper.request('open', wish)
    for (const [index, part] of parts.entries()) {
      expect(part, part.title).toEqual(trimChange({ title: part.title, before: wholes[index] ?? '', after: await listing(part.title) }))
      expect(unifiedPatch(part), part.title).toMatch(/^--- .*\n\+\+\+ .*\n@@ -\d+,\d+ \+\d+,\d+ @@\n/)
    }
    await expect(helper.request('preview', { plan: wish.plan })).rejects.toMatchObject({ code: 'already-open' })
    await helper.request('close', {})
    await helper.end()
    await expectClean(lab, before)
  })
})

test('what a crash left is shown as going; what opening would refuse is refused', async () => {
  await lab.exec('router', ['sh', '-ec', 'nft add table inet sluice; ip rule add pref 0 fwmark 0x40000000/0x40000000 lookup 7701 protocol 77'])
  const before = await snapshot(lab)
  helper = start()
  await helper.request('hello', { protocol: 1 })
  const { plan } = openArguments('/nowhere', 'nft')
  const { parts } = await helper.request('preview', { plan })
  expect(parts.map((part) => unifiedPatch(part)).join('')).toContain('-0:\tfrom all fwmark 0x40000000/0x40000000 lookup 7701 proto 77')
  expect(await snapshot(lab)).toBe(before)
  await lab.exec('router', ['ip', 'route', 'add', '198.51.100.77/32', 'dev', 'lo', 'table', '7701'])
  await expect(helper.request('preview', { plan })).rejects.toMatchObject({ code: 'table-taken' })
  await expect(helper.request('preview', { plan: { ...plan, tcp: [{ from: 0, to: 1 }] } })).rejects.toMatchObject({ code: 'protocol' })
  await helper.end()
})
