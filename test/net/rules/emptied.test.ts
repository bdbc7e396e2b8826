import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import type { LabProcess } from '#test/lab/labProcess.ts'
import { labAddresses, makeLab, type Lab, type Place } from '#test/lab/makeLab.ts'
import { applyRules, type AppliedRules } from './applyRules.ts'
import { startRelay, type TestRelay } from './testRelay.ts'

// Somebody empties conntrack (`conntrack -F`, or a firewall's reload that does so) while flows are relayed.

const [echoing, speaking] = ['5300', '5301']
const families = ['ipv4', 'ipv6'] as const
const near = { ipv4: labAddresses.ipv4.routerToClient, ipv6: labAddresses.ipv6.routerToClient }

let lab: Lab
let relay: TestRelay
let rules: AppliedRules | undefined
const running = new Set<LabProcess>()

beforeAll(async () => {
  lab = await makeLab()
  for (const [place, dev, address] of [['router', 'sv0', 'fe80::1:5'], ['server', 'up0', 'fe80::2']] as const) await lab.exec(place, ['sh', '-ec', `ip -6 addr flush dev ${dev} scope link; ip addr add ${address}/64 dev ${dev} nodad`])
  for (const family of families) {
    for (const [place, host] of [['server', labAddresses[family].server], ['router', near[family]]] as const) {
      for (const more of [[], ['--udp']]) await lab.peer(place, 'serve', place, echoing, '--host', host, ...more).event(({ event }) => event === 'listening')
    }
  }
})
afterAll(() => lab.remove())
beforeEach(async () => {
  relay = await startRelay(lab)
})
afterEach(async () => {
  for (const each of running) await each.stop()
  running.clear()
  await rules?.remove()
  rules = undefined
  await relay.stop()
})

const start = (process: LabProcess): LabProcess => {
  running.add(process)
  return process
}
const empty = (): Promise<unknown> => lab.exec('router', ['conntrack', '-F'])

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  beforeEach(async () => {
    rules = await applyRules(lab, { tcp: `${echoing},${speaking}`, udp: echoing, scope: ['forwarded', 'local', 'incoming'] }, { backend, relayPort: relay.port, linkLocal: ['sv0'] })
  })

  async function talk(place: Place, address: string, port: string, ...more: readonly string[]): Promise<LabProcess> {
    const client = start(lab.peer(place, 'talk', address, port, ...more))
    await client.event(({ event }) => event === 'open')
    return client
  }

  describe.each(families)('%s', (family) => {
    const { server } = labAddresses[family]

    test.each([
      ['a device', 'client', server],
      ['a device, for a service here', 'client', near[family]],
      ['a program', 'router', server],
    ] as const)('a flow of UDP goes on by the relay: %s', async (_, place, address) => {
      const client = await talk(place, address, echoing, '--udp')
      const say = async (word: string): Promise<unknown> => {
        client.write(`send ${word}`)
        return (await client.event(({ echo }) => echo === word))['seenPort']
      }
      const port = await say('before')
      await empty()
      expect(await say('after')).toBe(port)
      expect(await relay.total()).toBe(1)
    })

    test.each([
      ['another machine', server],
      ['a service here', near[family]],
    ])('a connection of a device to %s goes on', async (_, address) => {
      const client = await talk('client', address, echoing)
      await client.event(({ event }) => event === 'line')
      await empty()
      client.write('send after')
      await client.event(({ line }) => line === 'after')
      expect(await relay.total()).toBe(1)
    })
  })

  test.each([...families, 'link-local'] as const)('%s: a connection of a program goes on if it hears of the other side first', async (kind) => {
    const [listening, address] = kind === 'link-local' ? [`TCP6-LISTEN:${speaking}`, 'fe80::2%sv0'] : kind === 'ipv4' ? [`TCP4-LISTEN:${speaking}`, labAddresses.ipv4.server] : [`TCP6-LISTEN:${speaking}`, labAddresses.ipv6.server]
    const serving = start(lab.spawn('server', ['socat', '-', `${listening},reuseaddr`]))
    await expect.poll(async () => (await lab.exec('server', ['ss', '-Hltn', `sport = :${speaking}`])).stdout, { timeout: 20_000, interval: 50 }).toContain(`:${speaking}`)
    const client = await talk('router', address, speaking)
    client.write('send before')
    await serving.line((line) => line === 'before')
    for (const word of ['one', 'two']) {
      await empty()
      serving.write(`to ${word}`)
      await client.event(({ line }) => line === `to ${word}`)
      client.write(`send from ${word}`)
      await serving.line((line) => line === `from ${word}`)
    }
    expect(await relay.total()).toBe(1)
  })
})
