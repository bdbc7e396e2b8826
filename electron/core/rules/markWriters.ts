import { chainPrefix, nftFamily, nftTable } from './names.ts'

/** A rule of somebody else's that writes marks, and bits of them that are its. */
export interface MarkWriter {
  /** `inet theirs premangle`, or `iptables-legacy mangle PREROUTING (IPv4)`. */
  readonly chain: string
  readonly bits: number
}

const whole = 0xffff_ffff

/**
 * What a writer claims. With a mask: the bits it clears, sets or turns. Without one the whole mark is written, which some do to flows of their own (wg-quick, most proxies): then
 * the value's bits. A mark that is taken over from the flow or given to it whole is no claim: ours are in both.
 */
function claimed({ keep, set }: { readonly keep: number; readonly set: number }): number {
  return ((keep >>> 0) === 0 ? set : ~keep | set) >>> 0
}

/** Of what `iptables-save` printed. @param who before the table's name: `iptables-legacy` */
export function markWritersOfIptables(saved: string, who: string, family: 'ipv4' | 'ipv6'): MarkWriter[] {
  let table = ''
  const found: MarkWriter[] = []
  for (const line of saved.split('\n')) {
    table = /^\*(\S+)/.exec(line)?.[1] ?? table
    const [, chain = '', target = ''] = /^-A (\S+) .*?-j ((?:MARK|CONNMARK|TPROXY) .*)/.exec(line) ?? []
    if (chain === '' || chain.startsWith(chainPrefix)) continue
    const value = /--(?:set-x?mark|tproxy-mark) (0x[0-9a-f]+|\d+)(?:\/(0x[0-9a-f]+|\d+))?/i.exec(target)
    const passed = /--(restore|save)-mark(?: --nfmask (\S+) --ctmask (\S+))?/.exec(target)
    let bits = 0
    if (value !== null) bits = claimed({ keep: ~Number(value[2] ?? whole) >>> 0, set: Number(value[1]) })
    else if (passed !== null) bits = claimed({ keep: ~Number((passed[1] === 'restore' ? passed[2] : passed[3]) ?? whole) >>> 0, set: 0 })
    if (bits !== 0) found.push({ chain: `${who} ${table} ${chain} (${family === 'ipv4' ? 'IPv4' : 'IPv6'})`, bits })
  }
  return found
}

/** Names of iptables-nft's tables: nft lists their rules as what it thinks they mean, and not what they do to marks. */
export const iptablesNames: readonly string[] = ['raw', 'mangle', 'nat', 'filter', 'security']

/** Of what `nft -j list ruleset` printed; ours and iptables-nft's are left out. Anything odd claims nothing. */
export function markWritersOfNft(listed: string): { readonly writers: readonly MarkWriter[]; readonly hasIptables: boolean } {
  const writers: MarkWriter[] = []
  let hasIptables = false
  for (const item of itemsIn(listed)) {
    const rule = property(item, 'rule')
    const [family, table, chain] = [property(rule, 'family'), property(rule, 'table'), property(rule, 'chain')].map(String)
    const expressions = property(rule, 'expr')
    if (!Array.isArray(expressions) || (family === nftFamily && table === nftTable)) continue
    if ((family === 'ip' || family === 'ip6') && iptablesNames.includes(table ?? '')) {
      hasIptables = true
      continue
    }
    for (const expression of expressions as unknown[]) {
      const mangle = property(expression, 'mangle')
      const target = property(mangle, 'key')
      const kind = property(property(target, 'meta'), 'key') === 'mark' ? 'meta' : property(property(target, 'ct'), 'key') === 'mark' ? 'ct' : undefined
      if (kind === undefined) continue
      const bits = claimed(valueOf(property(mangle, 'value'), kind))
      if (bits !== 0) writers.push({ chain: `${family ?? ''} ${table ?? ''} ${chain ?? ''}`, bits })
    }
  }
  return { writers, hasIptables }
}

/** Which bits of the mark an expression keeps, and which it sets or turns. */
function valueOf(expression: unknown, kind: 'meta' | 'ct'): { readonly keep: number; readonly set: number } {
  if (typeof expression === 'number') return { keep: 0, set: expression >>> 0 }
  if (property(property(expression, kind), 'key') === 'mark') return { keep: whole, set: 0 }
  for (const operator of ['&', '|', '^'] as const) {
    const operands = property(expression, operator)
    if (!Array.isArray(operands)) continue
    const [left, right] = operands as unknown[]
    const { keep, set } = valueOf(left, kind)
    // The kernel has constants alone on that side.
    if (typeof right !== 'number') break
    return operator === '&' ? { keep: keep & right, set: set & right } : { keep: keep & ~right, set: set | right }
  }
  const pairs = property(property(property(expression, 'map'), 'data'), 'set')
  const values = Array.isArray(pairs) ? (pairs as unknown[]).flatMap((pair) => (Array.isArray(pair) && typeof pair[1] === 'number' ? [pair[1]] : [])) : []
  return { keep: 0, set: values.reduce((bits, value) => bits | value, 0) >>> 0 }
}

function itemsIn(listed: string): readonly unknown[] {
  try {
    const items = property(JSON.parse(listed), 'nftables')
    return Array.isArray(items) ? (items as unknown[]) : []
  } catch {
    return []
  }
}

function property(of: unknown, name: string): unknown {
  return typeof of === 'object' && of !== null && Object.hasOwn(of, name) ? (of as Record<string, unknown>)[name] : undefined
}
