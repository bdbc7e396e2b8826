import { iptablesNames, markWritersOfIptables, markWritersOfNft } from '#core/rules/markWriters.ts'
import type { MarkWriter } from '#core/rules/markWriters.ts'
import { ask, readText } from './doctorFacts.ts'

/** Rules of others in this network namespace that write marks; only root may read them, so for others there are none. */
export async function readMarkWriters(): Promise<MarkWriter[]> {
  if (process.geteuid?.() !== 0) return []
  const families = [['ip', 'ipv4'], ['ip6', 'ipv6']] as const
  const ofNft = async (): Promise<readonly MarkWriter[]> => {
    const { writers, hasIptables } = markWritersOfNft((await ask('nft', ['-j', 'list', 'ruleset'])) ?? '')
    if (!hasIptables) return writers
    const saved = await Promise.all(families.map(async ([ip, family]) => markWritersOfIptables((await ask(`${ip}tables-nft-save`, [])) ?? '', 'iptables', family)))
    return [...writers, ...saved.flat()]
  }
  const ofLegacy = families.map(async ([ip, family]) => {
    // Where old iptables has no table it need not be asked; it would load its modules.
    const tables = ((await readText(`/proc/self/net/${ip}_tables_names`)) ?? '').split('\n')
    return tables.some((name) => iptablesNames.includes(name)) ? markWritersOfIptables((await ask(`${ip}tables-legacy-save`, [])) ?? '', 'iptables-legacy', family) : []
  })
  return (await Promise.all([ofNft(), ...ofLegacy])).flat()
}
