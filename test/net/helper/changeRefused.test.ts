import { existsSync, mkdirSync, rmdirSync } from 'node:fs'
import { afterEach, describe, expect, test } from 'vitest'

import type { PlanWish } from '#core/plan/makePlan.ts'
import type { Backend } from '#core/plan/plan.ts'
import { listCgroups } from '#probe/cgroups.ts'
import { labAddresses } from '#test/lab/makeLab.ts'

import { ask, expectClean, expectDirect, openGate, planFor, snapshot } from './harness.ts'
import type { TestHelper } from './harness.ts'
import { olderTool } from './olderTools.ts'
import { before, lab, programs, start } from './stage.ts'

// The kernel refuses a change of which the relay was told already: rules and relay are then both as before, and whoever asked is told.

const backends: readonly Backend[] = ['nft', 'iptables', 'iptables-legacy']

/** With a tool that refuses what speaks of this. nft is then run for each change, as where tables have no owners. */
const startRefusing = (backend: Backend, refuses: string): TestHelper => start(olderTool(programs.folder, backend, [...(backend === 'nft' ? ['flags owner'] : []), refuses].join('|')))

/** A change of all that the relay is told of. Nobody listens where connections are to be sent. */
const wish: Partial<PlanWish> = { tcp: '8080', udp: '9000', refuse: '9000', send: ['8080=socks5:127.0.0.1:1080'], udpIdle: { other: 1 }, hold: false }

/** Without what is renewed and runs out by itself; an empty chain of iptables-nft's own that a step had need of stays until the gate closes. */
const rules = async (): Promise<string> =>
  (await snapshot(lab)).replace(/(set lease \{\n[^}]*?)\t\telements = \{[^}]*\}\n/g, '$1').replace(/\n+\tchain OUTPUT \{\n\t\ttype route hook output priority mangle; policy accept;\n\t\}/g, '')

async function askUdp(): Promise<Record<string, unknown>> {
  return lab.peer('client', 'ask', labAddresses.ipv4.server, '9000', '--udp').event(() => true)
}

describe.each(backends)('%s', (backend) => {
  test('refused as a whole, or by the second family alone: all goes on as before, and the next change is made', async () => {
    await lab.peer('server', 'serve', 'origin', '9000', '--udp', '--host', labAddresses.ipv4.server).event(({ event }) => event === 'listening')
    const helper = startRefusing(backend, '2001:db8:9::/48')
    await openGate(helper, programs, backend, { tcp: '8080', udp: '9000' })
    const talking = lab.peer('client', 'talk', labAddresses.ipv6.server, '8080')
    await talking.event(({ event }) => event === 'line')
    const open = await rules()
    await expect(helper.request('change', planFor({ ...wish, backend, exclude: ['2001:db8:9::/48'] }))).rejects.toMatchObject({ code: 'rules-failed', message: expect.stringMatching(/refused the rules$/) as string })
    expect(await rules()).toBe(open)
    // Neither sent to the proxy nor refused.
    for (const from of ['client', 'router'] as const) for (const family of ['ipv4', 'ipv6'] as const) expect(await ask(lab, from, family, 8080)).toMatchObject({ ok: true, server: 'origin', relayed: true })
    const answer = await askUdp()
    expect(answer).toMatchObject({ ok: true })
    expect(answer['seenPort']).not.toBe(answer['localPort'])
    talking.write('send still here')
    await talking.event(({ line }) => line === 'still here')
    // Nobody else was here.
    expect(helper.events.filter((event) => event.event === 'warning' && event.code === 'rules-restored')).toEqual([])
    await helper.request('change', planFor({ ...wish, backend }))
    expect(await askUdp()).toMatchObject({ ok: false, error: 'ECONNREFUSED' })
    await helper.end()
    await expectClean(lab, before)
    await expectDirect(lab)
  })

  test('refused in its second step, after conntrack was given time to learn what UDP is under way: the first goes back as well', async () => {
    // What takes devices' UDP comes with the second step.
    const helper = startRefusing(backend, backend === 'nft' ? 'fwd_port .*udp dport' : 'FWD_PORT .*--dports 39999')
    await openGate(helper, programs, backend, { tcp: '8080', scope: ['forwarded'] })
    const open = await rules()
    await expect(helper.request('change', planFor({ backend, tcp: '9000', udp: '39999', scope: ['forwarded'] }))).rejects.toMatchObject({ code: 'rules-failed' })
    expect(await rules()).toBe(open)
    expect(await ask(lab, 'client', 'ipv4', 8080)).toMatchObject({ ok: true, relayed: true })
    await helper.request('change', planFor({ backend, tcp: '8080,8090', scope: ['forwarded'] }))
    expect(await ask(lab, 'client', 'ipv6', 8080)).toMatchObject({ ok: true, relayed: true })
    await helper.end()
    await expectClean(lab, before)
    await expectDirect(lab)
  })
})

const cgroupRoot = `/sys/fs/cgroup/${(await listCgroups())?.prefix ?? ''}`
/** Two units, of which the plans name one each. */
const units = (['old', 'new'] as const).map((name) => `sluicelab-${String(process.pid)}-${name}`) as [string, string]
const folders = units.map((unit) => `${cgroupRoot}/${unit}`)
const canMake = ((): boolean => {
  try {
    for (const folder of folders) mkdirSync(folder)
    for (const folder of folders) rmdirSync(folder)
    return true
  } catch {
    return false
  }
})()

const halfChange = { code: 'rules-failed', message: 'a change of the rules was refused, and so was taking back what of it was done' }

/** The gate closes, says why, and leaves nothing. */
async function expectClosed(helper: TestHelper): Promise<void> {
  expect((await helper.event('closed')).failure).toMatchObject({ ...halfChange, detail: expect.stringMatching(/refused the rules[^]*refused the rules/) as string })
  await helper.end()
  await expectClean(lab, before)
  await expectDirect(lab)
}

describe.runIf(canMake).each(['iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  afterEach(() => {
    for (const folder of folders.filter((each) => existsSync(each))) rmdirSync(folder)
  })

  test('refused for the second family, and so is the first one’s way back, since the units of both plans ended meanwhile: the gate closes and says why', async () => {
    for (const folder of folders) mkdirSync(folder)
    const [old, next] = units
    // The kernel takes no rule about a unit that is not there.
    const helper = start(olderTool(programs.folder, backend, 'nothing at all', { at: next, words: `[[ $name == ip6* ]] && rmdir ${folders.join(' ')}` }))
    await openGate(helper, programs, backend, { tcp: '8080', scope: ['local'], cgroups: [old] })
    await expect(helper.request('change', planFor({ backend, tcp: '8080', scope: ['local'], cgroups: [next] }))).rejects.toMatchObject(halfChange)
    await expectClosed(helper)
  })
})

test('nft without owned tables: refused in its second step, and so is the way back, since somebody flushed all rules meanwhile: the gate closes and says why', async () => {
  // They would be put back, but not amid a change: that asks for what is gone.
  const helper = start(olderTool(programs.folder, 'nft', 'flags owner', { at: 'fwd_port [^;]*udp dport', words: '"$real" flush ruleset' }))
  await openGate(helper, programs, 'nft', { tcp: '8080', scope: ['forwarded'] })
  await expect(helper.request('change', planFor({ backend: 'nft', tcp: '9000', udp: '39999', scope: ['forwarded'] }))).rejects.toMatchObject(halfChange)
  await expectClosed(helper)
})
