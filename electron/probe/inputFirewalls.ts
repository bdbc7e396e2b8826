import { nftFamily, nftTable } from '#core/rules/names.ts'

import { ask, readText } from './doctorFacts.ts'

/** A base chain that drops what comes in, unless a rule of its own lets our mark pass. */
export interface InputFirewall {
  /** `inet firewalld filter_INPUT`, or `iptables-legacy INPUT (IPv4)`. */
  readonly chain: string
  readonly letsPass: boolean
  /** A command that makes it let diverted packets pass. */
  readonly mend: string
}

/**
 * Firewalls that eat what is diverted: forwarded packets handed to the relay pass INPUT with their foreign destination, so where INPUT drops (by policy, or by a last
 * rule, as firewalld does) they need an accept in that very chain: one in a table of ours cannot undo it.
 * @param ruleset what `nft list ruleset` prints; @param legacy what iptables-legacy-save and ip6tables-legacy-save print, one after the other
 */
export function findInputFirewalls(ruleset: string, legacy: { readonly ipv4: string; readonly ipv6: string }, mark: number): InputFirewall[] {
  const found: InputFirewall[] = []
  const both = `${hex(mark)}/${hex(mark)}`
  for (const [heading, body] of blocks(ruleset, /^table (\S+ \S+) \{/, /^\}/)) {
    if (heading === `${nftFamily} ${nftTable}`) continue
    const [family = '', name = ''] = heading.split(' ')
    if (!['ip', 'ip6', 'inet'].includes(family)) continue
    for (const [chain, rules] of blocks(body, /^\tchain (\S+) \{/, /^\t\}/)) {
      if (!/type filter hook input /.test(rules)) continue
      const lines = rules.split('\n').map((line) => line.trim()).filter((line) => line !== '')
      const last = lines.at(-1) ?? ''
      if (!/policy drop;/.test(rules) && !/^(?:counter(?: packets \d+ bytes \d+)? )?(?:drop|reject\b.*)$/.test(last)) continue
      const iptables = name === 'filter' && chain === 'INPUT' && family !== 'inet'
      found.push({
        chain: `${family} ${name} ${chain}`,
        letsPass: lines.some((line) => accepts(line, mark)),
        mend: iptables ? `sudo ${family === 'ip' ? 'iptables' : 'ip6tables'}-nft -I INPUT -m mark --mark ${both} -j ACCEPT` : `sudo nft insert rule ${family} ${name} ${chain} meta mark \\& ${hex(mark)} == ${hex(mark)} accept`,
      })
    }
  }
  for (const family of ['ipv4', 'ipv6'] as const) {
    const filter = /^\*filter\n[\s\S]*?^COMMIT/m.exec(legacy[family])?.[0] ?? ''
    if (!/^:INPUT DROP/m.test(filter)) continue
    found.push({
      chain: `iptables-legacy INPUT (${family === 'ipv4' ? 'IPv4' : 'IPv6'})`,
      letsPass: filter.split('\n').some((line) => line.startsWith('-A INPUT') && accepts(line, mark)),
      mend: `sudo ${family === 'ipv4' ? 'iptables' : 'ip6tables'}-legacy -I INPUT -m mark --mark ${both} -j ACCEPT`,
    })
  }
  return found
}

/** nft and iptables write marks with and without leading zeros. */
function accepts(line: string, mark: number): boolean {
  return /\baccept\b/i.test(line) && (new RegExp(`0x0*${mark.toString(16)}\\b`).test(line) || /socket transparent 1/.test(line))
}

function blocks(text: string, opens: RegExp, closes: RegExp): [string, string][] {
  const found: [string, string][] = []
  let heading: string | undefined
  let body: string[] = []
  for (const line of text.split('\n')) {
    if (heading === undefined) {
      heading = opens.exec(line)?.[1]
      body = []
    } else if (closes.test(line)) {
      found.push([heading, body.join('\n')])
      heading = undefined
    } else body.push(line)
  }
  return found
}

function hex(mark: number): string {
  return `0x${mark.toString(16).padStart(8, '0')}`
}

/** The same of this machine now, which only root may read. */
export async function readInputFirewalls(mark: number): Promise<InputFirewall[]> {
  // Where old iptables has no table it need not be asked.
  const legacy = async (family: 'ip' | 'ip6'): Promise<string | undefined> => ((await readText(`/proc/self/net/${family}_tables_names`)) ?? '').split('\n').includes('filter') ? ask(`${family}tables-legacy-save`, []) : undefined
  const [ruleset, ipv4, ipv6] = await Promise.all([ask('nft', ['list', 'ruleset']), legacy('ip'), legacy('ip6')])
  return findInputFirewalls(ruleset ?? '', { ipv4: ipv4 ?? '', ipv6: ipv6 ?? '' }, mark)
}
