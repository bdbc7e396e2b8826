import { existsSync, readFileSync } from 'node:fs'

import { chainPrefix, defaultTable, iptablesTable, nftFamily, nftTable, routeProtocol, rulePreference } from '#core/rules/names.ts'
import { sweepIptables } from '#core/rules/renderIptables.ts'

import type { Journal } from './runFolder.ts'
import { findTool, runTool } from './runTool.ts'

/**
 * Takes back whatever of Sluice's lies on this network namespace, by name: nft table, chains of both iptables, ip rules, routes. Each kind and
 * family is tried even where another failed. Idempotent; touches nothing that does not bear our name. The caller holds the lock, so nothing of
 * this belongs to a living Sluice. Returns one line for each thing taken back; throws nothing.
 */
export async function takeBack(journal: Journal | undefined): Promise<string[]> {
  const removed: string[] = []
  const attempts = [
    () => removeNftTable(removed),
    ...(['nft', 'legacy'] as const).flatMap((kind) =>
      (['ipv4', 'ipv6'] as const).map((family) => () => removeChains(kind, family, journal, removed)),
    ),
    ...(['-4', '-6'] as const).map((family) => () => removeRoutes(family, journal?.table ?? defaultTable, removed)),
  ]
  for (const attempt of attempts) await attempt().catch(() => undefined)
  return removed
}

async function removeNftTable(removed: string[]): Promise<void> {
  const nft = findTool('nft')
  if (nft === undefined) return
  const listed = await runTool(nft, ['list', 'tables', nftFamily])
  if (!listed.stdout.split('\n').includes(`table ${nftFamily} ${nftTable}`)) return
  const result = await runTool(nft, ['delete', 'table', nftFamily, nftTable])
  if (result.exitCode === 0) removed.push(`nft table ${nftFamily} ${nftTable}`)
}

async function removeChains(kind: 'nft' | 'legacy', family: 'ipv4' | 'ipv6', journal: Journal | undefined, removed: string[]): Promise<void> {
  const program = `${family === 'ipv4' ? 'iptables' : 'ip6tables'}-${kind}`
  const [save, restore] = [findTool(`${program}-save`), findTool(`${program}-restore`)]
  if (save === undefined || restore === undefined) return
  // Asking legacy iptables loads its kernel modules; where its mangle table is not registered nothing of ours can be in it.
  if (kind === 'legacy' && !legacyTables(family).includes(iptablesTable)) return
  const text = sweepIptables((await runTool(save, ['-t', iptablesTable])).stdout)
  if (text !== '') {
    const result = await runTool(restore, ['--noflush', '-w', '5'], { input: text })
    if (result.exitCode === 0) removed.push(`${program} chains ${chainPrefix}*`)
  }
  if (kind === 'nft' && journal?.backend === 'iptables' && !journal.mangle[family]) await removeEmptyMangle(family)
}

export function legacyTables(family: 'ipv4' | 'ipv6'): string[] {
  const path = family === 'ipv4' ? '/proc/self/net/ip_tables_names' : '/proc/self/net/ip6_tables_names'
  return existsSync(path) ? readFileSync(path, 'utf8').split('\n') : []
}

/** Is the family's `mangle` table of iptables-nft there? Asked before ours is put in. */
export async function hasMangle(family: 'ipv4' | 'ipv6'): Promise<boolean> {
  const nft = findTool('nft')
  if (nft === undefined) return true
  const listed = await runTool(nft, ['list', 'tables', family === 'ipv4' ? 'ip' : 'ip6'])
  return listed.stdout.split('\n').includes(`table ${family === 'ipv4' ? 'ip' : 'ip6'} ${iptablesTable}`)
}

/** iptables-nft makes a table when it first writes to it and leaves it behind; one that came with us and holds no rule goes with us. */
export async function removeEmptyMangle(family: 'ipv4' | 'ipv6'): Promise<void> {
  const nft = findTool('nft')
  if (nft === undefined) return
  const name = family === 'ipv4' ? 'ip' : 'ip6'
  const listed = await runTool(nft, ['-j', 'list', 'table', name, iptablesTable])
  if (listed.exitCode !== 0) return
  const parsed = JSON.parse(listed.stdout) as { nftables?: readonly Record<string, unknown>[] }
  const others = (parsed.nftables ?? []).filter((entry) => !('metainfo' in entry) && !('table' in entry))
  const builtIn = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING']
  const empty = others.every((entry) => {
    const chain = entry['chain'] as { name?: string; policy?: string } | undefined
    return chain !== undefined && builtIn.includes(chain.name ?? '') && chain.policy !== 'drop'
  })
  if (empty) await runTool(nft, ['delete', 'table', name, iptablesTable])
}

interface ListedRule {
  readonly priority?: number
  readonly fwmark?: string
  readonly fwmask?: string
  readonly iif?: string
  readonly table?: string
  readonly protocol?: string
}

async function removeRoutes(family: '-4' | '-6', table: number, removed: string[]): Promise<void> {
  const ip = findTool('ip')
  if (ip === undefined) return
  const word = family === '-4' ? 'IPv4' : 'IPv6'
  const listed = await runTool(ip, ['-j', '-N', family, 'rule', 'show'])
  const rules = (JSON.parse(listed.stdout || '[]') as readonly ListedRule[]).filter(
    (rule) => rule.protocol === String(routeProtocol) && rule.priority === rulePreference && rule.fwmark !== undefined,
  )
  // Our rules name their tables, so a table of another plan is found as well. 254 is main, which one of ours looks up.
  const tables = new Set([String(table), ...rules.flatMap((rule) => (rule.table === undefined || rule.table === '254' ? [] : [rule.table]))])
  for (const rule of rules) {
    const args = ruleSelector(rule)
    if ((await runTool(ip, [family, 'rule', 'del', ...args])).exitCode === 0) removed.push(`${word} rule ${args.join(' ')}`)
  }
  for (const name of tables) {
    const routes = await runTool(ip, ['-N', family, 'route', 'show', 'table', name, 'protocol', String(routeProtocol)])
    if (routes.exitCode !== 0 || routes.stdout.trim() === '') continue
    const flushed = await runTool(ip, [family, 'route', 'flush', 'table', name, 'protocol', String(routeProtocol)])
    if (flushed.exitCode === 0) removed.push(`${word} routes in table ${name}`)
  }
}

function ruleSelector(rule: ListedRule): string[] {
  const mark = rule.fwmask === undefined ? `${rule.fwmark ?? ''}/0xffffffff` : `${rule.fwmark ?? ''}/${rule.fwmask}`
  return [
    ...['pref', String(rule.priority ?? 0)],
    ...(rule.iif === undefined ? [] : ['iif', rule.iif]),
    ...['fwmark', mark],
    ...['lookup', rule.table ?? 'main', 'protocol', String(routeProtocol)],
  ]
}
