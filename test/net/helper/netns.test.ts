import { afterAll, beforeAll, expect, test } from 'vitest'

import { connectHelper } from '#elevate/helperConnection.ts'
import { labAddresses, makeLab } from '#test/lab/makeLab.ts'
import type { Lab } from '#test/lab/makeLab.ts'
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { compileRules } from '#core/rules/compileRules.ts'
import { makePlan } from '#core/plan/makePlan.ts'
import { digestRules } from '#probe/digestRules.ts'
import { makeProgramFolder, makeSession, person, snapshot } from './harness.ts'

// Started in one namespace, at work in another: what a container looks like from its host. Nothing may happen where it was started.

let programs: Awaited<ReturnType<typeof makeProgramFolder>>
let lab: Lab
beforeAll(async () => {
  programs = await makeProgramFolder()
  lab = await makeLab()
  await lab.peer('server', 'serve', 'origin', '8080').event(({ event }) => event === 'listening')
  await lab.peer('server', 'serve', 'origin', '5300', '--udp').event(({ event }) => event === 'listening')
})
afterAll(async () => {
  await lab.remove()
  programs.remove()
})

/** The helper as the command starts it, from the server's namespace. */
function startIn(netns: string) {
  const [command = '', ...words] = lab.enter('server')
  const child = spawn(command, [...words, process.execPath, join(programs.folder, 'helper.mjs'), '--netns', netns], { stdio: ['pipe', 'pipe', 'pipe'], env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', SUDO_UID: String(person.uid) }, detached: true })
  return connectHelper(child)
}

async function askFromClient(family: 'ipv4' | 'ipv6', ...how: ['8080'] | ['5300', '--udp']): Promise<{ ok: boolean; relayed: boolean }> {
  const answer = await lab.peer('client', 'ask', labAddresses[family].server, ...how).event(() => true)
  return { ok: answer['ok'] === true, relayed: answer['ok'] === true && answer['seenPort'] !== answer['localPort'] }
}

test.each([
  ['its name', 'nft'],
  ['a process in it', 'nft'],
  ['its name', 'iptables'],
  ['a process in it', 'iptables-legacy'],
] as const)('the gate opens inside a namespace given by %s (%s), and nowhere else', async (by, backend) => {
  const inside = lab.spawn('client', ['sh', '-c', 'echo inside; exec sleep 600'])
  // Before that it is a process of the namespace it was started in, where nothing may happen.
  await inside.line((line) => line === 'inside')
  const before = { client: await snapshot(lab, 'client'), server: await snapshot(lab, 'server') }
  const helper = startIn(by === 'its name' ? lab.names.client : String(inside.pid))
  expect(await helper.request('hello', { protocol: 1 })).toMatchObject({ uid: person.uid })
  const facts = await helper.request('facts', {})
  expect(facts.interfaces).toEqual(['lo', 'up0'])
  const plan = makePlan({ tcp: '8080', udp: '5300', scope: ['local'], backend })
  const opened = await helper.request('open', { plan, digest: digestRules(compileRules(plan, facts)), capture: { folder: makeSession(programs, 'inside'), payload: true, maxBytesPerFlow: null, maxBytes: null }, threads: 1 })
  expect(opened.backend).toBe(backend)
  for (const family of ['ipv4', 'ipv6'] as const) {
    expect(await askFromClient(family, '8080')).toEqual({ ok: true, relayed: true })
    expect(await askFromClient(family, '5300', '--udp')).toEqual({ ok: true, relayed: true })
  }
  expect(await snapshot(lab, 'server')).toBe(before.server)
  expect(await snapshot(lab, 'client')).not.toBe(before.client)
  await helper.end()
  await expect.poll(() => snapshot(lab, 'client')).toBe(before.client)
  expect(await askFromClient('ipv4', '8080')).toEqual({ ok: true, relayed: false })
  expect(await askFromClient('ipv4', '5300', '--udp')).toEqual({ ok: true, relayed: false })
  await inside.stop()
})

test.each(['nosuch', '../etc/passwd', '-t', '', '0', '4294967295', 'a/b', '..'])('refuses %j', async (netns) => {
  const helper = startIn(netns)
  await expect(helper.request('hello', { protocol: 1 })).rejects.toMatchObject({ code: 'helper-died', detail: expect.stringMatching(/namespace/) as string })
  await helper.end()
})
