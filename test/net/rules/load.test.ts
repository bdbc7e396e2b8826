import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { makePlan, type PlanWish } from '#core/plan/makePlan.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import { previewRules } from '#core/rules/previewRules.ts'
import { renderNft } from '#core/rules/renderNft.ts'
import { iptablesTools } from '#probe/tools.ts'
import { makeLab, type Lab } from '#test/lab/makeLab.ts'

// What a person is shown must load as it stands, by the real tools.

let lab: Lab
beforeAll(async () => {
  lab = await makeLab()
})
afterAll(() => lab.remove())

const everyOther = Array.from({ length: 2000 }, (_, index) => 1000 + index * 3).join(',')
const wishes: Readonly<Record<string, PlanWish>> = {
  plain: { tcp: '80' },
  'every port': { tcp: '1-65535' },
  'very many ports': { tcp: everyOther },
  'very many exclusions': { tcp: '80', exclude: Array.from({ length: 1500 }, (_, index) => `10.${index >> 8}.${index & 255}.0/${25 + (index & 1)}`) },
  'everything excluded': { tcp: '80', exclude: ['0.0.0.0/0', '::/0'] },
  'exclusions that nest': { tcp: '80', exclude: ['10.0.0.0/8', '10.1.0.0/16', '10.1.2.3', '0.0.0.0/1', 'fe80::1', '2000::/3', '2001:db8::/32'] },
  'many interfaces': { tcp: '80', scope: ['forwarded'], interfaces: ['cl0', 'sv0', 'veth*', 'veth1', 'br-0123456789ab', 'a.b@c'], users: [3] },
  datagrams: { tcp: '', udp: '1-65535' },
  'both transports': { tcp: '80', udp: `53,${everyOther}`, refuse: '443', users: [3], interfaces: ['cl0'], exclude: ['10.0.0.0/8'] },
  'many users': { tcp: '80', scope: ['local'], users: [0, 1, 2, 3, 1000, 65534, 0xffff_fffe] },
}

describe.each(Object.entries(wishes))('%s', (_name, wish) => {
  const rules = compileRules(makePlan(wish), { tools: [], ipv6: true, interfaces: ['cl0', 'sv0', 'br-0123456789ab', 'a.b@c'] })

  test('nft, command by command and as one transaction', async () => {
    const [preview] = previewRules(rules, 50080, 'nft')
    await lab.exec('router', ['nft', '-f', '-'], { input: preview?.text ?? '' })
    const stepwise = (await lab.exec('router', ['nft', 'list', 'ruleset'])).stdout
    const { load, remove } = renderNft(rules, { relayPort: 50080, owner: false, holds: true, leaseSeconds: 4 })
    await lab.exec('router', ['nft', '-f', '-'], { input: remove })
    await lab.exec('router', ['nft', '-f', '-'], { input: load })
    expect((await lab.exec('router', ['nft', 'list', 'ruleset'])).stdout).toBe(stepwise)
    await lab.exec('router', ['nft', '-f', '-'], { input: remove })
  })

  test('iptables', async () => {
    for (const backend of ['iptables', 'iptables-legacy'] as const) {
      const texts = previewRules(rules, 50080, backend).filter(({ title }) => title.includes('tables'))
      expect(texts).toHaveLength(2)
      for (const [index, { text }] of texts.entries()) {
        const { restore, save } = iptablesTools(backend, index === 0 ? 'ipv4' : 'ipv6')
        // A place of its own, so that nothing is left for the next one.
        await lab.exec('router', ['unshare', '--net', '--', 'sh', '-ec', `${restore} --noflush; ${save} -t mangle | grep -c SLUICE_`], { input: text })
      }
    }
  })

  test('routes', async () => {
    const text = previewRules(rules, 50080).at(-1)?.text ?? ''
    await lab.exec('router', ['unshare', '--net', '--', 'sh', '-e'], { input: `ip link set lo up\n${text}` })
  })
})

test('the golden files load', async () => {
  const golden = (name: string): string => readFileSync(new URL(`../../unit/rules/golden/${name}`, import.meta.url), 'utf8')
  for (const name of ['plain', 'forwarded']) {
    await lab.exec('router', ['unshare', '--net', '--', 'nft', '-f', '-'], { input: golden(`${name}.nft`) })
    await lab.exec('router', ['unshare', '--net', '--', 'iptables-nft-restore', '--noflush'], { input: golden(`${name}.iptables`) })
    await lab.exec('router', ['unshare', '--net', '--', 'ip6tables-nft-restore', '--noflush'], { input: golden(`${name}.ip6tables`) })
  }
})
