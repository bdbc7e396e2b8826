import { chainPrefix } from './names.ts'

/** Lines of an `iptables-save` of our table that are ours or lead to us, without counters and the lease's end: equal before and after means that nobody touched them. */
export function ownLines(saved: string): string[] {
  return saved.split('\n').filter((line) => line.includes(chainPrefix)).map((line) => line.replace(/\s*\[\d+:\d+\]/, '').replace(/ -m time --datestop \S+/, ''))
}

/**
 * Whether `found` (`ownLines`) can be what `load` (renderIptables) made: as many rules in each chain, and jumps to them. The words differ, since iptables writes rules in its own.
 */
export function isWhole(load: string, found: readonly string[]): boolean {
  const count = (lines: readonly string[]): string => {
    const counts = new Map<string, number>()
    for (const line of lines) {
      const chain = /^(?:-A |:)(\S+)/.exec(line)?.[1]
      if (chain !== undefined) counts.set(chain, (counts.get(chain) ?? 0) + 1)
    }
    return JSON.stringify([...counts].sort(([a], [b]) => (a < b ? -1 : 1)))
  }
  return count(load.split('\n')) === count(found)
}

/**
 * `load` (renderIptables) as a text that may be restored over whatever is left of it: declaring a chain empties it, and jumps that are still there go before
 * they are added again, so that none stands twice. One transaction a table.
 */
export function repairIptables(load: string, saved: string): string {
  const [wanted, found] = [load, saved].map((text) => text.split(/^(?=\*)/m))
  const headOf = (section: string): string => section.slice(0, section.indexOf('\n'))
  return (wanted ?? []).map((section) => repairTable(section, found?.find((each) => headOf(each) === headOf(section)) ?? '')).join('')
}

function repairTable(load: string, saved: string): string {
  const left = saved.split('\n').filter((line) => line.startsWith('-A ') && !line.startsWith(`-A ${chainPrefix}`) && line.includes(` -j ${chainPrefix}`))
  // A jump to a chain that is going to be declared anyway; one to a chain of an older Sluice cannot be there: its taking back came first.
  const lines = load.split('\n')
  const at = lines.findIndex((line) => line.startsWith('-A '))
  return [...lines.slice(0, at), ...left.map((line) => line.replace('-A ', '-D ')), ...lines.slice(at)].join('\n')
}

/** What is missing or changed, in a person's words. */
export function describeLoss(expected: readonly string[], found: readonly string[], family: string): string {
  const gone = expected.filter((line) => !found.includes(line))
  if (!found.some((line) => line.startsWith(`:${chainPrefix}`))) return `all chains ${chainPrefix}* (${family})`
  const jumps = gone.flatMap((line) => (line.startsWith(`-A ${chainPrefix}`) || line.startsWith(':') ? [] : [line.split(' ')[1] ?? '']))
  if (jumps.length === gone.length && jumps.length > 0) return `the jump${jumps.length === 1 ? '' : 's'} from ${jumps.join(' and ')} (${family})`
  return `rules of the chains ${chainPrefix}* (${family})`
}
