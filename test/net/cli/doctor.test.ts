import { expect, test } from 'vitest'

import type { DoctorRow } from '#core/contract/bridge.ts'

import { snapshot } from '../helper/harness.ts'
import { olderTool } from '../helper/olderTools.ts'
import { prepared, sluice } from './harness.ts'
import { installed, lab } from './stage.ts'

/** What the doctor says of a network namespace in which something stands in the way; it only looks. */
async function rows(args: readonly string[] = [], within: readonly string[] = [], place: 'router' | 'client' = 'router'): Promise<Map<string, DoctorRow>> {
  const { stdout, stderr } = await sluice(lab, installed, ['doctor', '--json', ...args], within, place)
  expect(stderr).toBe('')
  return new Map((JSON.parse(stdout) as DoctorRow[]).map((row) => [row.id, row]))
}

const troubles = `
ip rule add pref 100 fwmark 0x02000000/0x03000000 lookup 300
nft -f - <<'END'
table inet guarded { chain input { type filter hook input priority 0; policy drop; tcp dport 22 accept; }; }
table inet other { chain pre { type filter hook prerouting priority mangle; tcp dport 81 tproxy ip to 127.0.0.1:81; }; }
END
iptables-legacy -P INPUT DROP
echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter
`

test('nothing in the way, then everything', async () => {
  const good = await rows()
  expect([...good.values()].filter(({ verdict }) => verdict === 'fail')).toEqual([])
  for (const id of ['tproxy', 'socket', 'ct', 'route-type', 'sets', 'reject', 'log', 'hops', 'owner-user']) expect(good.get(`kernel-${id}`), id).toMatchObject({ verdict: 'ok', fact: expect.stringContaining('tried by nft') as string })
  expect(good.get('rp-filter')).toMatchObject({ verdict: 'ok' })
  expect([...good.keys()]).toEqual(expect.arrayContaining(['disk', 'cgroups', 'managers', 'bridges', 'files']))

  await lab.exec('router', ['sh', '-ec', troubles])
  const troubled = await snapshot(lab)
  const bad = await rows()
  expect(bad.get('ip-rules')).toMatchObject({ verdict: 'fail', fact: expect.stringContaining('fwmark 0x2000000/0x3000000') as string, mend: expect.stringMatching(/--marks 0x[0-9a-f]+,0x[0-9a-f]+,0x[0-9a-f]+/) as string })
  expect(bad.get('firewall')).toMatchObject({ verdict: 'warn', mend: 'sudo nft insert rule inet guarded input meta mark \\& 0x02000000 == 0x02000000 accept and sudo iptables-legacy -I INPUT -m mark --mark 0x02000000/0x02000000 -j ACCEPT' })
  expect(bad.get('rp-filter')).toMatchObject({ verdict: 'warn', fact: expect.stringContaining('net.ipv4.conf.all.rp_filter is 1') as string, mend: expect.stringContaining('net.ipv4.conf.all.rp_filter=2') as string })
  expect(bad.get('tproxy')).toMatchObject({ verdict: 'warn' })
  expect(await snapshot(lab)).toBe(troubled)
  // The mend is exact: after it, it is well.
  const mend = bad.get('firewall')?.mend ?? ''
  await lab.exec('router', ['sh', '-ec', mend.replaceAll('sudo ', '').replace(' and ', '\n')])
  expect(await rows().then((mended) => mended.get('firewall'))).toMatchObject({ verdict: 'ok' })
  // From elsewhere, of this namespace.
  const inside = await rows(['--netns', lab.names.router], [], 'client')
  expect(inside.get('ip-rules')).toEqual(bad.get('ip-rules'))
  expect([...inside.keys()].sort()).toEqual([...bad.keys()].sort())
})

test('an ability that one tool has not', async () => {
  const found = await rows([], olderTool(installed.folder, 'nft', 'tproxy '))
  expect(found.get('kernel-tproxy')).toMatchObject({ verdict: 'ok', fact: 'tried by iptables, iptables-legacy; nft cannot: Error: Operation not supported' })
  expect(found.get('kernel-socket')).toMatchObject({ verdict: 'ok', fact: 'tried by nft, iptables, iptables-legacy' })
})

test('little room, no cgroups, a manager that runs', async () => {
  const folder = `${installed.folder}/sessions`
  const manager = lab.spawn('router', ['sh', '-c', 'cp /bin/sleep "$0/tailscaled"; exec "$0/tailscaled" 60', folder])
  try {
    await expect.poll(async () => (await rows([], prepared(`mount -t tmpfs -o size=1m none ${folder}; umount -l /sys/fs/cgroup/unified 2>/dev/null || umount -l /sys/fs/cgroup; cd ${folder}`))).get('managers')?.fact, { timeout: 20_000 }).toContain('Tailscale')
    const found = await rows([], prepared(`mount -t tmpfs -o size=1m none ${folder}; umount -l /sys/fs/cgroup/unified 2>/dev/null || umount -l /sys/fs/cgroup; cd ${folder}`))
    expect(found.get('disk')).toMatchObject({ verdict: 'warn', fact: expect.stringContaining('0.0 GiB free') as string })
    expect(found.get('cgroups')).toMatchObject({ verdict: 'warn' })
  } finally {
    process.kill(manager.pid, 'SIGKILL')
  }
})

/** In a mount namespace, these files of /proc say this; the kernel's own settings are everybody's. */
const told = (files: Readonly<Record<string, string>>): string[] =>
  prepared(`mount -t tmpfs none /mnt\n${Object.entries(files).map(([path, text], index) => `printf '%s' '${text}' > /mnt/${String(index)}; mount --bind /mnt/${String(index)} ${path}`).join('\n')}`)

test('what a gate meets when it carries much: connection tracking, ports, files, buffers', async () => {
  await lab.exec('router', ['sh', '-ec', `nft 'add table inet theirs; add chain inet theirs seen { type filter hook output priority 0; }; add rule inet theirs seen ct state new counter'
    echo '40000 40999' > /proc/sys/net/ipv4/ip_local_port_range; echo '40100-40199,50000' > /proc/sys/net/ipv4/ip_local_reserved_ports
    ping -c 1 -W 5 203.0.113.2 > /dev/null`])
  const found = await rows()
  // The ping stays there for half a minute.
  const [, followed] = /^follows ([\d,]+) connections? and has room for [\d,]+ more/.exec(found.get('conntrack')?.fact ?? '') ?? []
  expect(Number(followed)).toBeGreaterThanOrEqual(1)
  expect(found.get('local-ports')).toMatchObject({ verdict: 'warn', fact: '900 (40000 to 40999): at once to one port of one server 450 flows of this computer\'s programs or 900 of a device; 900 to a proxy. Further ones fail', mend: 'sudo sysctl net.ipv4.ip_local_port_range="32768 60999"' })
  // Of that namespace, asked from another.
  const inside = await rows(['--netns', lab.names.router], [], 'client')
  expect(inside.get('local-ports')).toEqual(found.get('local-ports'))
  expect(inside.get('conntrack')).toMatchObject({ verdict: found.get('conntrack')?.verdict })

  const scarce = await rows([], [...told({
    '/proc/sys/net/netfilter/nf_conntrack_max': '1000', '/proc/sys/net/netfilter/nf_conntrack_count': '600',
    '/proc/sys/fs/file-nr': '9000\t0\t10000', '/proc/sys/net/core/rmem_max': '65536', '/proc/sys/net/core/wmem_max': '8388608',
    '/proc/sys/net/ipv4/ip_local_port_range': '1024 65535', '/proc/sys/net/ipv4/ip_local_reserved_ports': '2000-60000',
  }), 'prlimit', '--nofile=1000:2000', '--'])
  expect(scarce.get('conntrack')).toMatchObject({ verdict: 'warn', fact: 'follows 600 connections and has room for 400 more: it would be full with 200 flows, as each takes two, and then the kernel drops whatever is new, also what is not Sluice\'s', mend: expect.stringContaining('sudo sysctl net.netfilter.nf_conntrack_max=65536') as string })
  expect(scarce.get('files')).toMatchObject({ verdict: 'warn', fact: 'a process may open 2,000: about 912 flows at once, further ones are refused' })
  expect(scarce.get('all-files')).toMatchObject({ verdict: 'warn', fact: expect.stringContaining('may open 10,000 and has opened 9,000: about 412 flows') as string, mend: 'sudo sysctl fs.file-max=65536' })
  expect(scarce.get('buffers')).toMatchObject({ verdict: 'warn', fact: expect.stringContaining('64 KiB that came and 8,192 KiB that go') as string, mend: 'sudo sysctl net.core.rmem_max=4194304' })
  expect(scarce.get('local-ports')).toMatchObject({ verdict: 'warn', mend: 'take ports out of net.ipv4.ip_local_reserved_ports' })

  const plenty = await rows([], [...told({
    '/proc/sys/net/netfilter/nf_conntrack_max': '0', '/proc/sys/fs/nr_open': '1500', '/proc/sys/fs/file-nr': '9000\t0\t9223372036854775807',
    '/proc/sys/net/core/rmem_max': '212992', '/proc/sys/net/core/wmem_max': '212992',
  }), 'prlimit', '--nofile=1000:2000', '--'])
  expect(plenty.get('conntrack')).toMatchObject({ verdict: 'ok', fact: expect.stringContaining('any number it is given') as string })
  expect(plenty.get('files')).toMatchObject({ verdict: 'warn', fact: expect.stringContaining('(fs.nr_open) lets no limit above 1,500 be taken') as string, mend: 'sudo sysctl fs.nr_open=2000' })
  expect(plenty.has('all-files')).toBe(false)
  expect(plenty.get('buffers')).toMatchObject({ verdict: 'ok', mend: 'sudo sysctl net.core.rmem_max=4194304 net.core.wmem_max=4194304, where datagrams are lost' })
})
