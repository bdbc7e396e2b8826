import { readFileSync } from 'node:fs'
import { join } from 'node:path'

import { expect, test } from 'vitest'


import { expectClean, openGate, planFor, snapshot } from './harness.ts'
import type { TestHelper } from './harness.ts'
import { before, lab, programs, start } from './stage.ts'

/** Interfaces come and go while the gate is open: their link-local flows are taken, and nothing is left of what that needed. */

const there = 'fe80::5:2'
const soon = { timeout: 15_000, interval: 50 } as const
/** A computer that is busy for seconds has its guard replaced, and says so. */
const unexpected = (helper: TestHelper): unknown[] => helper.events.filter((event) => event.event === 'closed' || (event.event === 'warning' && event.code !== 'guard-replaced'))
const router = (script: string): Promise<unknown> => lab.exec('router', ['sh', '-ec', script])
/** Of the server's end of a link. */
const address = (end: string, verb = 'add'): Promise<unknown> => lab.exec('server', ['ip', 'addr', verb, `${there}/64`, 'dev', end, 'nodad'])
const link = async (): Promise<void> => {
  await router(`ip link add sv1 type veth peer name up1 netns ${lab.names.server}; ip link set sv1 up`)
  await lab.exec('server', ['sh', '-ec', `ip addr add ${there}/64 dev up1 nodad; ip link set up1 up`])
}
const devices = async (): Promise<string[]> => [...(await lab.exec('router', ['ip', '-6', 'route', 'show', 'exact', 'fe80::/10', 'table', '7701'])).stdout.matchAll(/dev (\S+) proto 77/g)].map(([, name]) => name ?? '')

async function ask(device: string, timeout = 15_000): Promise<unknown> {
  const peer = lab.peer('router', 'ask', `${there}%${device}`, '8080', '--timeout', String(timeout))
  await peer.ended
  const answer = JSON.parse(peer.output().trim()) as { readonly ok: boolean; readonly seenPort?: number; readonly localPort?: number }
  return answer.ok ? (answer.seenPort === answer.localPort ? 'direct' : 'relayed') : answer
}

test('an interface that is there, one that comes, one that goes down and comes up, one that goes', async () => {
  await address('up0')
  const helper = start()
  const { folder } = await openGate(helper, programs, 'nft', { scope: ['local'] })
  expect(await devices()).toEqual(['cl0', 'sv0'])
  expect(await ask('sv0')).toBe('relayed')
  await link()
  await expect.poll(devices, soon).toEqual(['cl0', 'sv0', 'sv1'])
  await expect.poll(() => ask('sv1', 3000), soon).toBe('relayed')
  await router('ip link set sv1 down; ip link set sv1 up')
  await expect.poll(devices, soon).toEqual(['cl0', 'sv0', 'sv1'])
  await expect.poll(() => ask('sv1', 3000), soon).toBe('relayed')
  await router('ip link del sv1')
  expect(await devices()).toEqual(['cl0', 'sv0'])
  expect(await ask('sv0')).toBe('relayed')
  // Nobody took anything away, and nobody need be told.
  expect(unexpected(helper)).toEqual([])
  await helper.request('close', {})
  const recorded = readFileSync(join(folder, 'capture-000001.pcapng'), 'latin1')
  for (const device of ['sv0', 'sv1']) expect(recorded).toContain(`"server":{"address":"${there}%${device}","port":8080}`)
  await helper.end()
  await address('up0', 'del')
  await expectClean(lab, before)
})

test('one that somebody takes away is put back, and a person is told', async () => {
  const helper = start()
  await openGate(helper, programs, 'nft', { scope: ['local'] })
  expect(await devices()).toEqual(['cl0', 'sv0'])
  await router('ip -6 route flush exact fe80::/10 table 7701')
  const { message } = await helper.event('warning', ({ code }) => code === 'rules-restored')
  expect(message).toMatch(/^Somebody else took away the link-local route of (cl0, sv0|sv0, cl0); it was put back\.$/)
  expect(await devices()).toEqual(['cl0', 'sv0'])
  await helper.end()
  await expectClean(lab, before)
})

test('fifty at once, and the helper killed while they are there', async () => {
  const names = Array.from({ length: 50 }, (_, index) => `many${String(index)}`)
  const held = await snapshot(lab)
  const helper = start()
  await openGate(helper, programs, 'nft', { scope: ['forwarded'] })
  // Nobody's flows to such addresses may be taken, so there is no route.
  expect(await devices()).toEqual([])
  const { plan, digest } = planFor({ backend: 'nft' })
  await helper.request('change', { plan, digest })
  expect(await devices()).toEqual(['cl0', 'sv0'])
  await lab.exec('router', ['ip', '-batch', '-'], { input: names.map((name) => `link add ${name} type veth peer name ${name}p\nlink set ${name} up\nlink set ${name}p up\n`).join('') })
  await expect.poll(async () => (await devices()).length, soon).toBe(102)
  expect(unexpected(helper)).toEqual([])
  process.kill(helper.pid, 'SIGKILL')
  await expect.poll(devices, soon).toEqual([])
  await lab.exec('router', ['ip', '-batch', '-'], { input: names.map((name) => `link del ${name}\n`).join('') })
  await expectClean(lab, held)
})
