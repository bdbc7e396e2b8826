import { expect, test } from 'vitest'

import { markWritersOfIptables, markWritersOfNft } from '#core/rules/markWriters.ts'

const bitsOf = (...rules: readonly string[]): string[] => markWritersOfIptables(`*mangle\n:X - [0:0]\n${rules.map((rule) => `-A X ${rule}\n`).join('')}COMMIT\n`, 'iptables', 'ipv4').map(({ bits }) => bits.toString(16))

test('iptables: a mask claims its bits, a whole mark its value’s, what is taken over from the flow nothing', () => {
  expect(bitsOf(
    '-i tailscale0 -j MARK --set-xmark 0x40000/0xff0000', '-j MARK --set-xmark 0x4000/0x4000', '-j MARK --set-xmark 0x4000/0x0', '-m comment --comment "a -j MARK b" -j MARK --set-xmark 0x2000000/0xffffffff', '-j MARK --set-xmark 0x0/0xfff00000',
    '-j CONNMARK --set-xmark 0x10/0x30', '-p tcp -j TPROXY --on-port 12 --on-ip 127.0.0.1 --tproxy-mark 0x1/0x1',
  )).toEqual(['ff0000', '4000', '4000', '2000000', 'fff00000', '30', '1'])
  expect(bitsOf('-j CONNMARK --restore-mark --nfmask 0xff0000 --ctmask 0xff', '-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff0000')).toEqual(['ff0000', 'ff0000'])
  expect(bitsOf('-p udp -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff', '-m mark --mark 0x2000000/0x2000000 -j ACCEPT', '-j SLUICE_OUT', '-j RETURN')).toEqual([])
  expect(markWritersOfIptables('*mangle\n-A SLUICE_DIVERT -j MARK --set-xmark 0x2000000/0x2000000\nCOMMIT\n*nat\n-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\nCOMMIT\n', 'iptables-legacy', 'ipv6')).toEqual([{ chain: 'iptables-legacy nat KUBE-MARK-MASQ (IPv6)', bits: 0x4000 }])
})

const mark = { meta: { key: 'mark' } }
const flow = { ct: { key: 'mark' } }
const rule = (expr: readonly unknown[], table = 'theirs', family = 'inet'): unknown => ({ rule: { family, table, chain: 'c', expr } })
const sets = (value: unknown, key: unknown = mark): unknown => rule([{ mangle: { key, value } }])
const claims = (...items: readonly unknown[]): string[] => markWritersOfNft(JSON.stringify({ nftables: items })).writers.map(({ bits }) => bits.toString(16))

test('nft: likewise, whatever is done to the mark', () => {
  expect(claims(sets(16), sets({ '|': [mark, 16] }), sets({ '|': [{ '&': [mark, 0xff00ffff] }, 0x40000] }), sets({ '&': [mark, 0xffff] }), sets({ '^': [mark, 16] }), sets({ '^': [{ '&': [mark, 0xfffffeff] }, 0x200] }))).toEqual(['10', '10', 'ff0000', 'ffff0000', '10', '300'])
  expect(claims(sets({ '|': [flow, 2] }, flow), sets({ map: { key: {}, data: { set: [[80, 1], [81, 0x2000000]] } } }))).toEqual(['2', '2000001'])
  // wg-quick's two.
  expect(claims(sets(flow), sets(mark, flow))).toEqual([])
  expect(claims(rule([{ mangle: { key: { meta: { key: 'priority' } }, value: 1 } }]), rule([{ mangle: { key: mark, value: 1 } }], 'sluice'), sets({ map: { key: {}, data: '@m' } }))).toEqual([])
  expect(claims(rule([{ mangle: { key: mark, value: 1 } }], 'sluice', 'ip'))).toEqual(['1'])
})
test('tables of iptables-nft are for iptables to list', () => {
  expect(markWritersOfNft(JSON.stringify({ nftables: [rule([{ mangle: { key: mark, value: 1 } }], 'mangle', 'ip6')] }))).toEqual({ writers: [], hasIptables: true })
})
test.each(['', '{', '[]', '{"nftables":[null,{"rule":3},{"rule":{"expr":[null,{"mangle":null}]}}]}', '{"nftables":{}}'])('%j says nothing', (text) => {
  expect(markWritersOfNft(text).writers).toEqual([])
  expect(markWritersOfIptables(text, '', 'ipv4')).toEqual([])
})
