import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { makePlan } from '#core/plan/makePlan.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import { renderNft } from '#core/rules/renderNft.ts'
import { renderRoutes } from '#core/rules/renderRoutes.ts'
import { labAddresses, makeLab, type Lab, type Place } from '#test/lab/makeLab.ts'
import { applyRules, listRules, whileRenewed } from './applyRules.ts'
import { startRelay, type TestRelay } from './testRelay.ts'

let lab: Lab
let relay: TestRelay
const { server } = labAddresses.ipv4

beforeAll(async () => {
  lab = await makeLab()
  await lab.peer('server', 'serve', 'far', '8080').event((event) => event['event'] === 'listening')
  relay = await startRelay(lab)
})
afterAll(async () => {
  await relay.stop()
  await lab.remove()
})

async function relayed(place: Place): Promise<boolean> {
  const total = await relay.total()
  const answer = await lab.peer(place, 'ask', server, '8080').event(() => true)
  expect(answer).toMatchObject({ ok: true, server: 'far' })
  return (await relay.total()) > total
}

describe('nft: the dead man\'s switch', () => {
  test('a lease nobody renews runs out in the kernel: new flows go direct, relayed ones go on, renewing takes again', async () => {
    const rules = await applyRules(lab, { tcp: '8080' }, { backend: 'nft', relayPort: relay.port, leaseSeconds: 2 })
    const flow = lab.peer('client', 'talk', server, '8080')
    await whileRenewed(rules, () => flow.event((event) => event['event'] === 'line'))
    expect(await relay.total()).toBe(1)
    await expect.poll(async () => (await relayed('client')) || (await relayed('router')), { timeout: 20_000, interval: 200 }).toBe(false)
    flow.write('send still here')
    await flow.event((event) => event['line'] === 'still here')
    for (const place of ['client', 'router'] as const) expect(await whileRenewed(rules, () => relayed(place))).toBe(true)
    await flow.stop()
    await rules.remove()
  })

  test('renewing while flows open loses none of them', async () => {
    const rules = await applyRules(lab, { tcp: '8080' }, { backend: 'nft', relayPort: relay.port })
    let renewing = true
    const renewals = (async () => {
      let count = 0
      for (; renewing; count++) await rules.renew()
      return count
    })()
    const before = await relay.total()
    const asked = 40
    for (let round = 0; round < asked / 2; round++) {
      const answers = await Promise.all((['client', 'router'] as const).map((place) => lab.peer(place, 'ask', server, '8080').event(() => true)))
      for (const answer of answers) expect(answer).toMatchObject({ ok: true })
    }
    renewing = false
    expect(await renewals).toBeGreaterThan(5)
    expect((await relay.total()) - before).toBe(asked)
    await rules.remove()
  })

  test('an owned table takes every change through its holder, refuses others, and goes when the holder is killed', async () => {
    const before = await listRules(lab)
    const rules = compileRules(makePlan({ tcp: '8080' }), { tools: [], ipv6: true, interfaces: [] })
    const texts = renderNft(rules, { relayPort: relay.port, owner: true, leaseSeconds: 600 })
    const routes = renderRoutes(rules)
    const table = async (): Promise<string> => (await lab.exec('router', ['nft', 'list', 'ruleset'])).stdout
    for (const how of ['removed', 'killed'] as const) {
      const holder = lab.spawn('router', ['nft', '-i'])
      for (const argv of routes.apply) await lab.exec('router', ['ip', ...argv])
      holder.stdin.write(texts.load)
      holder.stdin.write(texts.arm)
      holder.stdin.write(texts.renew)
      await expect.poll(table).toMatch(/flags owner[\s\S]*elements = \{ tcp timeout 10m/)
      expect((await lab.exec('router', ['nft', '-f', '-'], { input: 'flush set inet sluice lease\n', reject: false })).stderr).toContain('Operation not permitted')
      await lab.exec('router', ['nft', 'flush', 'ruleset'])
      expect(await relayed('client')).toBe(true)
      expect(await relayed('router')).toBe(true)
      holder.stdin.write(texts.drain)
      await expect.poll(() => relayed('client')).toBe(false)
      if (how === 'removed') holder.stdin.write(texts.remove)
      else await holder.stop('SIGKILL')
      await expect.poll(table).toBe('')
      expect(holder.errors()).toBe('')
      await holder.stop()
      for (const argv of routes.revert) await lab.exec('router', ['ip', ...argv])
      expect(await listRules(lab)).toBe(before)
    }
  })
})
