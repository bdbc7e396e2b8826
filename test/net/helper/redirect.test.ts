import { describe, expect, test } from 'vitest'

import type { MachineFacts } from '#core/rules/machineFacts.ts'
import { labAddresses } from '#test/lab/makeLab.ts'
import type { Place } from '#test/lab/makeLab.ts'
import { startTalk, type Talk } from '#test/net/rules/exchanges.ts'

import { expectClean, expectDirect, openGate, planFor } from './harness.ts'
import type { TestHelper } from './harness.ts'
import { olderTool } from './olderTools.ts'
import { before, lab, programs, start } from './stage.ts'

// The real helper on a machine whose tools refuse what hands packets over as they are: it finds that out by trying, says what is lost, and redirects.

let helper: TestHelper | undefined

/** Whether the relay stands between: the server sees another port than the client has, or the router instead of it, whose port may by chance be the client's. */
async function isRelayed(talk: Talk): Promise<boolean> {
  const [{ localAddress, localPort }, { line }] = [await talk.event(({ event }) => event === 'open'), await talk.event(({ event }) => event === 'line')]
  return !String(line).endsWith(` ${String(localAddress)} ${String(localPort)}`)
}

describe.each([
  ['nft', 'tproxy '],
  ['iptables', 'TPROXY'],
  ['iptables-legacy', ' socket --transparent'],
] as const)('%s that refuses "%s"', (backend, refuses) => {
  const tools: MachineFacts['tools'] = [{ backend, usable: true, redirectsBecause: 'Error: Operation not supported' }]

  test('a firewall that lets a service\'s own port in and not the relay\'s: said with a mend that mends', async () => {
    helper = start(olderTool(programs.folder, backend, refuses))
    const router = (script: string): Promise<unknown> => lab.exec('router', ['sh', '-ec', script])
    await router('nft add table inet theirs; nft "add chain inet theirs input { type filter hook input priority filter; policy drop; }"; nft add rule inet theirs input ct state established,related accept; nft add rule inet theirs input iifname lo accept; nft add rule inet theirs input tcp dport 8080 accept')
    const service = lab.peer('router', 'serve', 'own', '8080')
    await service.event(({ event }) => event === 'listening')
    await openGate(helper, programs, backend, { tcp: '8080', scope: ['incoming'] }, tools)
    const { message } = await helper.event('warning', ({ code }) => code === 'firewall')
    expect(message).toContain('flows to services of this computer will not reach the relay')
    await router(/`sudo ([^`]+)`/.exec(message)?.[1] ?? 'false')
    const talk = await startTalk(lab, 'client', labAddresses.ipv4.routerToClient, '8080')
    expect(await isRelayed(talk)).toBe(true)
    for (const each of [talk, service]) await each.stop()
    await helper.end()
    await router('nft delete table inet theirs')
    await expectClean(lab, before)
  })

  test('redirects, says what is lost, changes while open, drains without cutting, and leaves nothing', async () => {
    helper = start(olderTool(programs.folder, backend, refuses))
    const opened = await openGate(helper, programs, backend, { tcp: '8080', udp: '53' }, tools)
    expect(opened).toMatchObject({ backend, redirects: true })
    const facts = await helper.request('facts', {})
    expect(facts.tools.find((tool) => tool.backend === backend)).toMatchObject({ usable: true, redirectsBecause: expect.stringContaining('Operation not supported') as string })
    const warnings = helper.events.flatMap((event) => (event.event === 'warning' && event.code === 'redirect' ? [event.message] : []))
    expect(warnings).toEqual([
      expect.stringMatching(/^This kernel cannot hand connections over as they are \(.*Operation not supported\), so TCP is redirected/),
      'UDP port 53 cannot be intercepted: left alone.',
      'Servers see this computer’s address instead of the devices’.',
      'The relay listens on every address of this computer; whoever speaks to it directly is turned away.',
      'A connection is accepted before its server has answered, so a closed port looks open for a moment.',
    ])
    const all: Talk[] = []
    const everywhere = async (): Promise<Talk[]> => {
      const talks: Talk[] = []
      for (const place of ['client', 'router'] satisfies Place[]) for (const family of ['ipv4', 'ipv6'] as const) talks.push(await startTalk(lab, place, labAddresses[family].server, '8080'))
      all.push(...talks)
      return talks
    }
    const relayed = await everywhere()
    for (const talk of relayed) expect(await isRelayed(talk)).toBe(true)

    await helper.request('change', planFor({ backend, tcp: '9000', udp: '53' }, tools))
    for (const talk of await everywhere()) expect(await isRelayed(talk)).toBe(false)
    await helper.request('change', planFor({ backend, tcp: '8080', scope: ['local'] }, tools))
    for (const talk of relayed) await talk.say('after two changes')

    await helper.request('drain', {})
    for (const talk of await everywhere()) expect(await isRelayed(talk)).toBe(false)
    for (const talk of all) {
      await talk.say('while draining')
      expect(helper.events.some(({ event }) => event === 'closed')).toBe(false)
    }
    for (const talk of all) {
      talk.write('end')
      await talk.event((event) => event['event'] === 'close')
    }
    expect((await helper.event('closed')).failure).toBeUndefined()
    await helper.end()
    await expectClean(lab, before)
    await expectDirect(lab)
  })
})

test('a helper that is killed leaves nothing redirected', async () => {
  helper = start(olderTool(programs.folder, 'iptables', 'TPROXY'))
  await openGate(helper, programs, 'iptables', { tcp: '8080' }, [{ backend: 'iptables', usable: true, redirectsBecause: 'no TPROXY' }])
  helper.kill()
  await expectClean(lab, before)
  await expectDirect(lab)
})
