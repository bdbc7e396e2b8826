import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'

import type { DoctorRow } from '#core/contract/bridge.ts'
import { makeLab } from '#test/lab/makeLab.ts'
import type { Lab } from '#test/lab/makeLab.ts'

import { snapshot } from '../helper/harness.ts'
import { olderTool } from '../helper/olderTools.ts'
import { installSluice, prepared, sluice } from './harness.ts'
import type { Installed } from './harness.ts'

/** What the doctor says of a network namespace in which something stands in the way; it only looks. */
let installed: Installed
let lab: Lab
beforeAll(() => {
  installed = installSluice()
}, 240_000)
afterAll(() => installed.remove())
beforeEach(async () => {
  lab = await makeLab()
})
afterEach(() => lab.remove())

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
  const before = await snapshot(lab)
  const bad = await rows()
  expect(bad.get('ip-rules')).toMatchObject({ verdict: 'fail', fact: expect.stringContaining('fwmark 0x2000000/0x3000000') as string, mend: expect.stringMatching(/--marks 0x[0-9a-f]+,0x[0-9a-f]+,0x[0-9a-f]+/) as string })
  expect(bad.get('firewall')).toMatchObject({ verdict: 'warn', mend: 'sudo nft insert rule inet guarded input meta mark \\& 0x02000000 == 0x02000000 accept and sudo iptables-legacy -I INPUT -m mark --mark 0x02000000/0x02000000 -j ACCEPT' })
  expect(bad.get('rp-filter')).toMatchObject({ verdict: 'warn', fact: expect.stringContaining('net.ipv4.conf.all.rp_filter is 1') as string, mend: expect.stringContaining('net.ipv4.conf.all.rp_filter=2') as string })
  expect(bad.get('tproxy')).toMatchObject({ verdict: 'warn' })
  expect(await snapshot(lab)).toBe(before)
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
