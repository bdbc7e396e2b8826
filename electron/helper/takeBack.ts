import { existsSync, readFileSync } from 'node:fs'

import { chainPrefix, defaultTable, iptablesTables, nftFamily, nftTable, routeProtocol } from '#core/rules/names.ts'
import type { IptablesTable } from '#core/rules/names.ts'
import { sweepIptables } from '#core/rules/renderIptables.ts'
import type { IpRule } from '#probe/readRouting.ts'

import { removeLeftScopes } from './runScope.ts'
import type { Journal } from './runFolder.ts'
import { askTool, findTool, runTool } from './runTool.ts'

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
      (['ipv4', 'ipv6'] as const).flatMap((family) => iptablesTables.map((table) => () => removeChains({ kind, family, table }, journal, removed))),
    ),
    ...(['-4', '-6'] as const).map((family) => () => removeRoutes(family, journal?.table ?? defaultTable, removed)),
  ]
  attempts.push(async () => {
    for (const path of await removeLeftScopes()) removed.push(`cgroup ${path}`)
  })
  for (const attempt of attempts) await attempt().catch(() => undefined)
  return removed
}

async function removeNftTable(removed: string[]): Promise<void> {
  const nft = findTool('nft')
  if (nft === undefined) return
  const listed = await askTool(nft, ['list', 'tables', nftFamily])
  if (!listed.stdout.split('\n').includes(`table ${nftFamily} ${nftTable}`)) return
  const result = await runTool(nft, ['delete', 'table', nftFamily, nftTable])
  if (result.exitCode === 0) removed.push(`nft table ${nftFamily} ${nftTable}`)
}

interface Place {
  readonly kind: 'nft' | 'legacy'
  readonly family: 'ipv4' | 'ipv6'
  readonly table: IptablesTable
}

async function removeChains({ kind, family, table }: Place, journal: Journal | undefined, removed: string[]): Promise<void> {
  const program = `${family === 'ipv4' ? 'iptables' : 'ip6tables'}-${kind}`
  const [save, restore] = [findTool(`${program}-save`), findTool(`${program}-restore`)]
  if (save === undefined || restore === undefined) return
  // Asking legacy iptables loads its kernel modules; where a table of its is not registered nothing of ours can be in it.
  if (kind === 'legacy' && !legacyTables(family).includes(table)) return
  const text = sweepIptables((await askTool(save, ['-t', table])).stdout, table)
  if (text !== '') {
    const result = await runTool(restore, ['--noflush', '-w', '5'], { input: text })
    if (result.exitCode === 0) removed.push(`${program} chains ${chainPrefix}*`)
  }
  if (kind !== 'nft') return
  if (journal?.backend === 'iptables') await restoreBase(family, table, journal[table][family])
  // Without a journal nobody knows what stood there before; where our chains were, what is empty and lets everything pass came with them or is missed by nobody.
  else if (journal === undefined && text !== '') await restoreBase(family, table, null)
}

export function legacyTables(family: 'ipv4' | 'ipv6'): string[] {
  const path = family === 'ipv4' ? '/proc/self/net/ip_tables_names' : '/proc/self/net/ip6_tables_names'
  return existsSync(path) ? readFileSync(path, 'utf8').split('\n') : []
}

/** Base chains of a table as iptables-nft makes it (policy accept); null: there is no such table. */
export type BaseChains = string[] | null

/** What is there of a family's table. Asked before ours is put in. */
export async function readBase(family: 'ipv4' | 'ipv6', table: IptablesTable): Promise<BaseChains> {
  const nft = findTool('nft')
  if (nft === undefined) return null
  const listed = await askTool(nft, ['-j', 'list', 'table', nftFamilyOf(family), table])
  if (listed.exitCode !== 0) return null
  const parsed = JSON.parse(listed.stdout) as { nftables?: readonly { chain?: { name: string; hook?: string; policy?: string } }[] }
  return (parsed.nftables ?? []).flatMap(({ chain }) => (chain?.hook === undefined || chain.policy !== 'accept' ? [] : [chain.name]))
}

/** iptables-nft makes table and base chains when it first writes to them and leaves them behind: what came with us and holds nothing goes with us. */
export async function restoreBase(family: 'ipv4' | 'ipv6', table: IptablesTable, before: BaseChains): Promise<void> {
  const nft = findTool('nft')
  const now = await readBase(family, table)
  if (nft === undefined || now === null) return
  const name = nftFamilyOf(family)
  for (const chain of now.filter((each) => before?.includes(each) !== true)) {
    // A chain somebody put a rule into meanwhile cannot be deleted, and need not be.
    await runTool(nft, ['delete', 'chain', name, table, chain])
  }
  if (before !== null) return
  const left = await askTool(nft, ['-j', 'list', 'table', name, table])
  if (left.exitCode === 0 && !/"(?:chain|set|map|rule)":/.test(left.stdout)) await runTool(nft, ['delete', 'table', name, table])
}

export const nftFamilyOf = (family: 'ipv4' | 'ipv6'): 'ip' | 'ip6' => (family === 'ipv4' ? 'ip' : 'ip6')

async function removeRoutes(family: '-4' | '-6', table: number, removed: string[]): Promise<void> {
  const ip = findTool('ip')
  if (ip === undefined) return
  const word = family === '-4' ? 'IPv4' : 'IPv6'
  const listed = await askTool(ip, ['-j', '-N', family, 'rule', 'show'])
  const rules = (JSON.parse(listed.stdout || '[]') as readonly IpRule[]).filter(
    (rule) => rule.protocol === String(routeProtocol) && rule.fwmark !== undefined,
  )
  // Our rules name their tables, so a table of another plan is found as well. 254 is main, which one of ours looks up.
  const tables = new Set([String(table), ...rules.flatMap((rule) => (rule.table === undefined || rule.table === '254' ? [] : [rule.table]))])
  for (const rule of rules) {
    const args = ruleSelector(rule)
    if ((await runTool(ip, [family, 'rule', 'del', ...args])).exitCode === 0) removed.push(`${word} rule ${args.join(' ')}`)
  }
  for (const name of tables) {
    const routes = await askTool(ip, ['-N', family, 'route', 'show', 'table', name, 'protocol', String(routeProtocol)])
    if (routes.exitCode !== 0 || routes.stdout.trim() === '') continue
    const flushed = await runTool(ip, [family, 'route', 'flush', 'table', name, 'protocol', String(routeProtocol)])
    if (flushed.exitCode === 0) removed.push(`${word} routes in table ${name}`)
  }
}

function ruleSelector(rule: IpRule): string[] {
  const mark = rule.fwmask === undefined ? `${rule.fwmark ?? ''}/0xffffffff` : `${rule.fwmark ?? ''}/${rule.fwmask}`
  return [
    ...['pref', String(rule.priority ?? 0)],
    ...(rule.iif === undefined ? [] : ['iif', rule.iif]),
    ...['fwmark', mark],
    ...['lookup', rule.table ?? 'main', 'protocol', String(routeProtocol)],
  ]
}
