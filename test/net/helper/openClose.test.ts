import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'

import { beforeEach, describe, expect, test } from 'vitest'

import { labAddresses } from '#test/lab/makeLab.ts'
import { startTalk } from '#test/net/rules/exchanges.ts'

import { ask, expectClean, expectDirect, findProcess, makeSession, openArguments, openGate, person, planFor, programsIn, snapshot } from './harness.ts'
import type { TestHelper } from './harness.ts'
import { before, lab, programs, start } from './stage.ts'

let helper: TestHelper

beforeEach(() => {
  helper = start()
})

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  test('opens, relays both families and scopes, closes, and leaves everything byte for byte as it was', async () => {
    const opened = await openGate(helper, programs, backend)
    expect(opened).toMatchObject({ backend, ipv6: true })
    for (const from of ['client', 'router'] as const) {
      for (const family of ['ipv4', 'ipv6'] as const) {
        expect(await ask(lab, from, family, 8080), `${from} ${family}`).toMatchObject({ ok: true, server: 'origin', relayed: true })
      }
    }
    await helper.event('flows', ({ total }) => total === 4)
    await helper.request('close', {})
    expect((await helper.event('closed')).failure).toBeUndefined()
    expect(await snapshot(lab)).toBe(before)
    expect(statSync(join(opened.folder, 'capture-000001.pcapng'))).toMatchObject({ uid: person.uid, gid: person.gid })
    await helper.end()
    await expectClean(lab, before)
    await expectDirect(lab)
  })

  test('keeps devices\' ports, also of flows that a change no longer takes, and leaves nothing', async () => {
    await openGate(helper, programs, backend, { keepPort: true })
    const talks = []
    for (const family of ['ipv4', 'ipv6'] as const) {
      const talking = await startTalk(lab, 'client', labAddresses[family].server, '8080')
      const [{ localPort }, { line }] = [await talking.event(({ event }) => event === 'open'), await talking.event(({ event }) => event === 'line')]
      expect(line).toBe(`origin ${labAddresses[family].client} ${String(localPort)}`)
      talks.push(talking)
    }
    await helper.event('flows', ({ total }) => total === 2)
    await helper.request('change', planFor({ backend, keepPort: true, scope: ['local'] }))
    for (const talking of talks) await talking.say('after a change')
    await expect(helper.request('change', planFor({ backend, scope: ['local'] }))).rejects.toMatchObject({ code: 'cannot-change' })
    await helper.request('drain', {})
    for (const talking of talks) {
      await talking.say('while draining')
      talking.write('end')
      await talking.event(({ event }) => event === 'close')
    }
    expect((await helper.event('closed')).failure).toBeUndefined()
    await helper.end()
    await expectClean(lab, before)
  })

  test('leaves a neighbour\'s own rules untouched', async () => {
    await lab.exec('router', ['iptables-nft', '-t', 'mangle', '-A', 'PREROUTING', '-p', 'udp', '--dport', '7', '-j', 'DROP'])
    await lab.exec('router', ['nft', 'add table inet neighbour { chain c { type filter hook input priority 0; policy accept; tcp dport 7 drop; }; }'])
    await lab.exec('router', ['ip', 'rule', 'add', 'pref', '0', 'fwmark', '0x5/0x5', 'lookup', '99'])
    const withNeighbour = await snapshot(lab)
    await openGate(helper, programs, backend)
    expect(await ask(lab, 'client', 'ipv4', 8080)).toMatchObject({ relayed: true })
    await helper.request('close', {})
    expect(await snapshot(lab)).toBe(withNeighbour)
  })

  test('UDP that an earlier gate took and that goes on is none of the next one\'s', async () => {
    await lab.peer('server', 'serve', 'origin', '5300', '--udp').event(({ event }) => event === 'listening')
    await openGate(helper, programs, backend, { udp: '5300' })
    const talks = (['client', 'router'] as const).flatMap((from) => (['ipv4', 'ipv6'] as const).map((family) => lab.peer(from, 'talk', labAddresses[family].server, '5300', '--udp')))
    await Promise.all(talks.map((talk) => talk.event(({ event }) => event === 'open')))
    /** The ports the server sees. Each word is said once: an answer that does not come is a datagram that was lost. */
    const ports = async (word: string): Promise<unknown[]> => {
      for (const talk of talks) talk.write(`send ${word}`)
      return Promise.all(talks.map(async (talk) => (await talk.event(({ event, echo }) => event === 'answer' && echo === word))['seenPort']))
    }
    const relayed = await ports('first')
    await helper.request('close', {})
    const own = await ports('between')
    expect(own.filter((port, at) => port === relayed[at])).toEqual([])
    for (const wish of [{}, { tcp: '', udp: '9999' }, { udp: '5300' }]) {
      await helper.request('open', openArguments(makeSession(programs, 'next'), backend, wish))
      expect(await ports(`beside ${JSON.stringify(wish)}`)).toEqual(own)
      await helper.request('close', {})
    }
    for (const talk of talks) await talk.stop()
    await helper.end()
    await expectClean(lab, before)
  })

  test('an app that goes away takes the gate with it', async () => {
    await openGate(helper, programs, backend)
    await helper.end()
    expect(await helper.ended).toBe(0)
    await expectClean(lab, before)
    await expectDirect(lab)
  })
})

test('what of UDP is refused, and how long its silence lasts, changes while open', async () => {
  const { server } = labAddresses.ipv4
  await lab.peer('server', 'serve', 'origin', '5300', '--udp', '--host', server).event(({ event }) => event === 'listening')
  await openGate(helper, programs, 'nft', { udp: '5300' })
  const askUdp = (): Promise<Record<string, unknown>> => lab.peer('client', 'ask', server, '5300', '--udp').event(() => true)
  expect(await askUdp()).toMatchObject({ ok: true })
  await helper.request('change', planFor({ backend: 'nft', udp: '5300', refuse: '5300', udpIdle: { other: 5 } }))
  await expect.poll(askUdp).toMatchObject({ ok: false, error: 'ECONNREFUSED' })
  await helper.request('change', planFor({ backend: 'nft', udp: '5300' }))
  await expect.poll(askUdp).toMatchObject({ ok: true })
  await helper.end()
  await expectClean(lab, before)
})

test('the same helper opens again after closing', async () => {
  await openGate(helper, programs, 'nft')
  await helper.request('close', {})
  const folder = makeSession(programs, 'again')
  await helper.request('open', openArguments(folder, 'nft'))
  expect(await ask(lab, 'client', 'ipv4', 8080)).toMatchObject({ relayed: true })
  await helper.end()
  await expectClean(lab, before)
})

test('the relay and its witness are the person\'s, with two capabilities and with two others', async () => {
  await openGate(helper, programs, 'nft')
  const relay = readFileSync(`/proc/${String(findProcess(lab, (line) => line.endsWith('/sluice-relay')))}/status`, 'utf8')
  expect(relay).toMatch(/^Uid:\t65534\t65534\t65534\t65534$/m)
  expect(relay).toMatch(/^CapEff:\t0000000000002400$/m)
  expect(relay).toMatch(/^CapBnd:\t0000000000000000$/m)
  expect(relay).toMatch(/^NoNewPrivs:\t1$/m)
  await helper.request('close', {})
})

test('refuses a digest that is not of its own rules, and changes nothing', async () => {
  await helper.request('hello', { protocol: 1 })
  const folder = makeSession(programs, 'digest')
  await expect(helper.request('open', { ...openArguments(folder, 'nft'), digest: '0'.repeat(64) })).rejects.toMatchObject({ code: 'digest-mismatch' })
  expect(await snapshot(lab)).toBe(before)
  // Who was ended may take a moment.
  await expect.poll(() => programsIn(lab)).toHaveLength(1)
})

test('a folder the person may not write to ends the opening, and everything is back', async () => {
  await helper.request('hello', { protocol: 1 })
  await expect(helper.request('open', openArguments('/root', 'nft'))).rejects.toMatchObject({ code: 'cannot-write' })
  expect(await snapshot(lab)).toBe(before)
  // Who was ended may take a moment.
  await expect.poll(() => programsIn(lab)).toHaveLength(1)
  await helper.end()
  await expectClean(lab, before)
})

test('hello must come first', async () => {
  const folder = makeSession(programs, 'early')
  await expect(helper.request('open', openArguments(folder, 'nft'))).rejects.toMatchObject({ code: 'protocol' })
  await expect(helper.request('drain', {})).rejects.toMatchObject({ code: 'protocol' })
})
