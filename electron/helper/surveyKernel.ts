import { chainPrefix, defaultTable, iptablesTables, nftFamily, nftTable, routeProtocol } from '#core/rules/names.ts'
import type { IptablesTable } from '#core/rules/names.ts'
import { readRouting } from '#probe/readRouting.ts'
import type { Routing } from '#probe/readRouting.ts'

import { askTool, findTool } from './runTool.ts'
import { legacyTables, nftFamilyOf, readBase } from './takeBack.ts'
import type { BaseChains } from './takeBack.ts'

/** What this network namespace has before a gate opens, by a few processes that run beside one another: looking must not take longer than doing. */
export interface Survey {
  /** Something may be there that bears our name: `takeBack` has to look. */
  readonly left: boolean
  readonly base: Readonly<Record<IptablesTable, { readonly ipv4: BaseChains; readonly ipv6: BaseChains }>>
  /** With the routes of the plan's table. */
  readonly routing: Routing
}

export async function surveyKernel(table: number): Promise<Survey> {
  const [nft, routing, ...legacy] = await Promise.all([listNft(), readRouting([...new Set([table, defaultTable])]), hasLegacyChains('ipv4'), hasLegacyChains('ipv6')])
  const ofOurs = [...routing.rules.map(({ rule }) => rule), ...routing.routes].some(({ protocol }) => protocol === String(routeProtocol))
  return { left: legacy.includes(true) || ofOurs || nft === undefined || nft.left, base: nft?.base ?? (await readBases()), routing }
}

/** Asked only where old iptables has a table: it loads modules for what it is asked. */
async function hasLegacyChains(family: 'ipv4' | 'ipv6'): Promise<boolean> {
  const save = findTool(family === 'ipv4' ? 'iptables-legacy-save' : 'ip6tables-legacy-save')
  if (save === undefined || !iptablesTables.some((name) => legacyTables(family).includes(name))) return false
  const saved = await askTool(save, [])
  return saved.exitCode !== 0 || saved.stdout.includes(`:${chainPrefix}`)
}

interface NftChain {
  readonly family: string
  readonly table: string
  readonly name: string
  readonly hook?: string
  readonly policy?: string
}

/** Tables and chains of everybody's, iptables-nft's among them, without their rules. Undefined: there is no nft, or not one that can say it. */
async function listNft(): Promise<Pick<Survey, 'left' | 'base'> | undefined> {
  const nft = findTool('nft')
  if (nft === undefined) return undefined
  const listed = await askTool(nft, ['-j', 'list tables; list chains'])
  if (listed.exitCode !== 0) return undefined
  const tables: { readonly family: string; readonly name: string }[] = []
  const chains: NftChain[] = []
  try {
    // A line of JSON for each command.
    for (const line of listed.stdout.split('\n').filter((each) => each !== '')) {
      for (const item of (JSON.parse(line) as { nftables: readonly { table?: (typeof tables)[number]; chain?: NftChain }[] }).nftables) {
        if (item.table !== undefined) tables.push(item.table)
        if (item.chain !== undefined) chains.push(item.chain)
      }
    }
  } catch {
    return undefined
  }
  const base = (family: 'ipv4' | 'ipv6', name: IptablesTable): BaseChains =>
    tables.some((each) => each.family === nftFamilyOf(family) && each.name === name)
      ? chains.filter((chain) => chain.family === nftFamilyOf(family) && chain.table === name && chain.hook !== undefined && chain.policy === 'accept').map((chain) => chain.name)
      : null
  const both = (name: IptablesTable): Survey['base'][IptablesTable] => ({ ipv4: base('ipv4', name), ipv6: base('ipv6', name) })
  return {
    left: tables.some(({ family, name }) => family === nftFamily && name === nftTable) || chains.some(({ name }) => name.startsWith(chainPrefix)),
    base: { raw: both('raw'), mangle: both('mangle'), nat: both('nat') },
  }
}

async function readBases(): Promise<Survey['base']> {
  const both = async (name: IptablesTable): Promise<Survey['base'][IptablesTable]> => ({ ipv4: await readBase('ipv4', name), ipv6: await readBase('ipv6', name) })
  return { raw: await both('raw'), mangle: await both('mangle'), nat: await both('nat') }
}
