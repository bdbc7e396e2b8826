import { beforeEach, describe, expect, test } from 'vitest'

import { labAddresses } from '#test/lab/makeLab.ts'
import type { Place } from '#test/lab/makeLab.ts'

import { ask, expectClean, expectDirect, openGate, snapshot } from './harness.ts'
import type { TestHelper } from './harness.ts'
import { before, lab, programs, start } from './stage.ts'

let helper: TestHelper

beforeEach(() => {
  helper = start()
})

/** A conversation that goes on as long as the test wants. */
async function converse(from: Place, family: 'ipv4' | 'ipv6') {
  const peer = lab.peer(from, 'talk', labAddresses[family].server, '8080')
  const { localPort } = await peer.event(({ event }) => event === 'open')
  const greeting = String((await peer.event(({ event }) => event === 'line'))['line'])
  return {
    peer,
    relayed: Number(greeting.split(' ')[2]) !== localPort,
    async say(word: string) {
      peer.write(`send ${word}`)
      await peer.event(({ line }) => line === word)
    },
    async end() {
      peer.write('end')
      await peer.event(({ line }) => line === 'bye')
      await peer.event(({ event }) => event === 'close')
    },
  }
}

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  test('draining waits for every open flow, new ones go direct, then everything is gone', async () => {
    const earlier = await converse('client', 'ipv4')
    await openGate(helper, programs, backend)
    await earlier.say('from before')
    const flows = [await converse('client', 'ipv4'), await converse('client', 'ipv6'), await converse('router', 'ipv4'), await converse('router', 'ipv6')]
    expect(flows.map(({ relayed }) => relayed)).toEqual([true, true, true, true])
    await helper.request('drain', {})
    await helper.request('drain', {})
    for (const from of ['client', 'router'] as const) {
      for (const family of ['ipv4', 'ipv6'] as const) expect(await ask(lab, from, family, 8080)).toMatchObject({ ok: true, relayed: false })
    }
    for (const flow of flows) await flow.say('while draining')
    for (const flow of flows) {
      expect(helper.events.some(({ event }) => event === 'closed')).toBe(false)
      await flow.say('last words')
      await flow.end()
    }
    expect((await helper.event('closed')).failure).toBeUndefined()
    expect(await snapshot(lab)).toBe(before)
    await earlier.say('from after')
    await earlier.end()
    await helper.end()
    await expectClean(lab, before)
    await expectDirect(lab)
  })

  test('draining with nothing open ends by itself', async () => {
    await openGate(helper, programs, backend)
    await helper.request('drain', {})
    expect((await helper.event('closed')).failure).toBeUndefined()
    expect(await snapshot(lab)).toBe(before)
    await expect(helper.request('drain', {})).rejects.toMatchObject({ code: 'not-open' })
  })

  test('closing while draining resets what is left', async () => {
    await openGate(helper, programs, backend)
    const flow = await converse('client', 'ipv4')
    const local = await converse('router', 'ipv6')
    await helper.request('drain', {})
    await helper.request('close', {})
    expect(await flow.peer.event(({ event }) => event === 'error')).toMatchObject({ error: 'ECONNRESET' })
    expect(await local.peer.event(({ event }) => event === 'error')).toMatchObject({ error: 'ECONNRESET' })
    expect(await snapshot(lab)).toBe(before)
  })

  test('a relay that dies while draining ends the draining', async () => {
    const { relayPid } = await openGate(helper, programs, backend)
    const flow = await converse('client', 'ipv4')
    await helper.request('drain', {})
    process.kill(relayPid, 'SIGKILL')
    expect((await helper.event('closed')).failure).toMatchObject({ code: 'relay-died' })
    expect(await flow.peer.event(({ event }) => event === 'error')).toMatchObject({ error: 'ECONNRESET' })
    await helper.end()
    await expectClean(lab, before)
  })
})
