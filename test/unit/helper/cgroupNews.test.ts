import { expect, test } from 'vitest'

import { nameOfCgroup, saidOfCgroup } from '#core/plan/describeCgroup.ts'
import { makePlan } from '#core/plan/makePlan.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import { renderIptables, renderIptablesChange } from '#core/rules/renderIptables.ts'
import { renderNftChange } from '#core/rules/renderNft.ts'
import type { CgroupIds, RuleSet } from '#core/rules/ruleSet.ts'
import { CgroupNewsTeller } from '#helper/cgroupNews.ts'

const rules = (cgroupIds: CgroupIds, cgroups = ['a.service', 'b.service']): RuleSet => ({ ...compileRules(makePlan({ tcp: '80', scope: ['local'], cgroups }), { tools: [], ipv6: true, interfaces: [] }), cgroupIds })

function telling(): { readonly teller: CgroupNewsTeller; readonly said: string[] } {
  const said: string[] = []
  return { teller: new CgroupNewsTeller((code, message) => said.push(`${code} ${message}`)), said }
}

test('names', () => {
  const id = '0123456789ab'.padEnd(64, 'c')
  expect([`system.slice/docker-${id}.scope`, `docker/${id}`, 'lxc.payload.web', 'machine.slice/machine-web.scope', 'system.slice/web.service', 'a/b'].map((path) => Object.values(nameOfCgroup(path)))).toEqual([
    ['container', '0123456789ab', true], ['container', '0123456789ab', true], ['container', 'web', false], ['container', 'web', false], ['unit', 'web.service', false], ['cgroup', 'a/b', false],
  ])
  expect(saidOfCgroup(`system.slice/docker-${id}.scope`, 'ended')).toBe('Container 0123456789ab has ended: nothing of it is taken until it starts again; one made anew has another id, and is taken if it was chosen by its name.')
  expect(saidOfCgroup('a/b', 'ended')).toBe('The cgroup a/b is gone: nothing of it is taken until it is made again.')
})

test('what is missing, has ended and is back is told once each; what was not chosen before is no news', () => {
  const { teller, said } = telling()
  teller.begin(rules({ 'a.service': '1' }))
  expect(said.splice(0)).toEqual(['cgroup-gone Unit b.service is not running: nothing of it is taken until it starts.'])
  teller.tell(rules({ 'a.service': '1' }))
  expect(said).toEqual([])
  teller.tell(rules({ 'b.service': '2' }))
  expect(said.splice(0)).toEqual(['cgroup-gone Unit a.service has ended: nothing of it is taken until it starts again.', 'cgroup-back Unit b.service has started: it is taken.'])
  const more = rules({ 'b.service': '2', 'c.service': '3' }, ['a.service', 'b.service', 'c.service'])
  teller.tell(more)
  teller.begin(more)
  expect(said).toEqual([])
  teller.tell(rules({ 'b.service': '2' }, ['a.service', 'b.service', 'c.service']))
  expect(said).toEqual(['cgroup-gone Unit c.service has ended: nothing of it is taken until it starts again.'])
})

test('what is chosen anew after it was not is no news', () => {
  const { teller, said } = telling()
  teller.begin(rules({ 'a.service': '1' }, ['a.service']))
  for (const next of [rules({}, []), rules({ 'a.service': '1' }, ['a.service'])]) {
    teller.tell(next)
    teller.begin(next)
  }
  expect(said).toEqual([])
  teller.tell(rules({}, ['a.service']))
  expect(said).toEqual(['cgroup-gone Unit a.service has ended: nothing of it is taken until it starts again.'])
})

test('who starts over and over is spoken of a few times', () => {
  const { teller, said } = telling()
  teller.begin(rules({}, ['a.service']))
  for (let id = 1; id <= 20; id++) teller.tell(rules({ 'a.service': String(id) }, ['a.service']))
  expect(said).toHaveLength(7)
  expect(said.at(-1)).toContain('again and again')
})

test('a cgroup made anew has its rule loaded anew and nothing else; one that has gone has none', () => {
  const before = rules({ 'a.service': '1', 'b.service': '2' })
  const anew = rules({ 'a.service': '3', 'b.service': '2' })
  const gone = rules({ 'b.service': '2' })
  const options = { relayPort: 50080 }
  expect(renderNftChange(before, before, options)).toBe('')
  expect(renderNftChange(before, anew, options)).toBe('flush chain inet sluice out_group; add rule inet sluice out_group socket cgroupv2 level 1 "a.service" jump out_port; add rule inet sluice out_group socket cgroupv2 level 1 "b.service" jump out_port\n')
  expect(renderNftChange(before, gone, options)).toBe('flush chain inet sluice out_group; add rule inet sluice out_group socket cgroupv2 level 1 "b.service" jump out_port\n')
  expect(renderNftChange(before, rules({}), options)).toBe('flush chain inet sluice out_group\n')
  const iptables = (from: RuleSet, to: RuleSet): string => renderIptablesChange({ ruleSet: from }, { ruleSet: to }, { ...options, family: 'ipv4' })
  expect(iptables(before, before)).toBe('')
  expect(iptables(before, anew)).toBe('*mangle\n:SLUICE_OUT_GROUP - [0:0]\n-A SLUICE_OUT_GROUP -m cgroup --path a.service -j SLUICE_OUT_PORT\n-A SLUICE_OUT_GROUP -m cgroup --path b.service -j SLUICE_OUT_PORT\nCOMMIT\n')
  expect(iptables(before, rules({}))).toBe('*mangle\n:SLUICE_OUT_GROUP - [0:0]\nCOMMIT\n')
  expect(renderIptables(gone, { ...options, family: 'ipv4' }).load).not.toContain('a.service')
})
