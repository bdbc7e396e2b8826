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
}

/** What a text for iptables-restore does with a packet that comes from `PREROUTING` or `OUTPUT`: rule by rule, as the kernel asks them. Of matches it knows those Sluice's rules use. */
export function walkIptables(text: string, hook: 'PREROUTING' | 'OUTPUT', packet: Packet): Walk {
  const chains = new Map<string, string[]>()
  for (const line of text.split('\n')) {
    const [, chain = '', rule = ''] = /^-A (\S+) (.*)$/.exec(line) ?? []
    if (chain !== '') chains.set(chain, [...(chains.get(chain) ?? []), rule])
  }
  let rules = 0
  /** Whether the walk ended there. */
  const enter = (chain: string): 'over' | 'returned' => {
    for (const rule of chains.get(chain) ?? []) {
      rules++
      const [, conditions = '', how = '', target = ''] = /^(.*?)(?:^| )-([jg]) (\S+)/.exec(rule) ?? []
      if (!holds(conditions, packet)) continue
      if (target === 'RETURN') return 'returned'
      if (['ACCEPT', 'DROP', 'TPROXY'].includes(target)) return 'over'
      // Local packets are marked on their way out.
      if (chain === 'SLUICE_OUT_TAKE') return 'over'
      if (!target.startsWith('SLUICE_')) continue
      const end = enter(target)
      if (end === 'over' || how === 'g') return end
    }
    return 'returned'
  }
  return { taken: enter(hook) === 'over', rules }
}

function holds(conditions: string, { transport, source, destination, port, opens }: Packet): boolean {
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
        case '--ctdir': return (argument(), true)
        case '--datestop': return (argument(), true)
        case '--ttl-lt': case '--hl-lt': return (argument(), false)
        case '--mark': return (argument(), false)
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
