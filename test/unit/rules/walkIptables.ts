import ipaddr from 'ipaddr.js'

/** A packet as the rules see it; everything else about it is usual: to another machine, of no socket of ours, without marks. */
export interface Packet {
  readonly transport: 'tcp' | 'udp'
  readonly source: string
  readonly destination: string
  readonly port: number
  /** Opens a connection (TCP), or is the first of its flow (UDP). */
  readonly opens: boolean
}
export interface Walk {
  readonly taken: boolean
  /** Rules that were asked. */
  readonly rules: number
  /** What it bears at the end, where it is not the relay's. */
  readonly mark: number
}

/** What a text for iptables-restore does with a packet that comes from `PREROUTING` or `OUTPUT`: rule by rule, as the kernel asks them. Of matches it knows those Sluice's rules use. */
export function walkIptables(text: string, hook: 'PREROUTING' | 'OUTPUT', packet: Packet): Walk {
  const chains = new Map<string, string[]>()
  for (const line of text.split('\n')) {
    const [, chain = '', rule = ''] = /^-A (\S+) (.*)$/.exec(line) ?? []
    if (chain !== '') chains.set(chain, [...(chains.get(chain) ?? []), rule])
  }
  let rules = 0
  let mark = 0
  /** Whether the walk ended there. */
  const enter = (chain: string): 'over' | 'returned' => {
    for (const rule of chains.get(chain) ?? []) {
      rules++
      const [, conditions = '', how = '', target = '', more = ''] = /^(.*?)(?:^| )-([jg]) (\S+)(.*)/.exec(rule) ?? []
      if (!holds(conditions, packet, mark)) continue
      if (target === 'RETURN') return 'returned'
      if (['ACCEPT', 'DROP', 'TPROXY'].includes(target)) return 'over'
      // Local packets are marked on their way out.
      if (chain === 'SLUICE_OUT_TAKE') return 'over'
      if (target === 'MARK') {
        const [bits = 0, mask = 0] = more.replace('--set-xmark', '').split('/').map(Number)
        mark = ((mark & ~mask) | bits) >>> 0
      }
      if (!target.startsWith('SLUICE_')) continue
      const end = enter(target)
      if (end === 'over' || how === 'g') return end
    }
    return 'returned'
  }
  const taken = enter(hook) === 'over'
  return { taken, rules, mark }
}

/** How many chains a packet may be deep in, and how often nf_tables looks through one when it goes after every jump by itself. */
export function jumpsOf(text: string, hook: string): { readonly deepest: number; readonly visits: number } {
  const targets = new Map<string, string[]>()
  for (const [, chain = '', target = ''] of text.matchAll(/^-A (\S+) (?:.* )?-[jg] (SLUICE_\S+)/gm)) targets.set(chain, [...(targets.get(chain) ?? []), target])
  const known = new Map<string, { deepest: number; visits: number }>()
  const look = (chain: string): { deepest: number; visits: number } => {
    const found = known.get(chain) ?? (targets.get(chain) ?? []).map(look).reduce((sum, { deepest, visits }) => ({ deepest: Math.max(sum.deepest, deepest + 1), visits: sum.visits + visits }), { deepest: 0, visits: 1 })
    known.set(chain, found)
    return found
  }
  return look(hook)
}

function holds(conditions: string, { transport, source, destination, port, opens }: Packet, mark: number): boolean {
  const words = conditions.split(' ').filter((word) => word !== '')
  for (let at = 0, not = false; at < words.length; at++) {
    const word = words[at] ?? ''
    if (word === '!') {
      not = true
      continue
    }
    const answer = ((): boolean => {
      const argument = (): string => words[++at] ?? ''
      switch (word) {
        case '-p': return argument() === transport
        case '-m': return (argument(), true)
        case '--syn': return opens
        case '-s': return isIn(source, argument())
        case '-d': return isIn(destination, argument())
        case '-i': return argument() !== 'lo'
        case '--dports': return argument().split(',').some((part) => {
          const [from = 0, to = from] = part.split(':').map(Number)
          return port >= from && port <= to
        })
        case '--ctstate': return { NEW: opens, 'ESTABLISHED,RELATED': !opens }[argument()] ?? false
        case '--dst-type': return argument() === 'UNICAST'
        case '--ctdir': return argument() === 'ORIGINAL'
        case '--datestop': return (argument(), true)
        case '--ttl-lt': case '--hl-lt': return (argument(), false)
        case '--mark': {
          const [bits = 0, mask = 0] = argument().split('/').map(Number)
          return (mark & mask) >>> 0 === bits
        }
        case '--transparent': return false
        default: throw new Error(`what is ${word} in ${conditions}?`)
      }
    })()
    if (word === '-m') continue
    if (answer === not) return false
    not = false
  }
  return true
}

function isIn(address: string, network: string): boolean {
  const [one, [base, length]] = [ipaddr.parse(address), ipaddr.parseCIDR(network)]
  return one.kind() === base.kind() && one.match(base, length)
}
