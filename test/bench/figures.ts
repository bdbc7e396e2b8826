/** What is measured, and what Sluice must reach. A figure is one run of the load generator (native/bench/load.cc) or is derived from one. */
export const contenders = ['direct', 'haproxy', 'haproxy-plain', 'squid', 'mitmdump', 'sluice', 'sluice-no-payload'] as const
export type Contender = (typeof contenders)[number]

export const contenderTitles: Readonly<Record<Contender, string>> = {
  direct: 'direct', haproxy: 'HAProxy', 'haproxy-plain': 'no splice', squid: 'Squid', mitmdump: 'mitmdump', sluice: 'Sluice', 'sluice-no-payload': 'no payload',
}

/** Runs of the load generator: verb and number of connections. Squid and mitmdump speak HTTP only, HAProxy no UDP. */
export const loads = {
  bulk: { lanes: 4, kind: 'tcp' }, connect: { lanes: 32, kind: 'tcp' }, request: { lanes: 32, kind: 'tcp' }, rtt: { lanes: 1, kind: 'tcp' },
  http: { lanes: 32, kind: 'http' }, 'http-connect': { lanes: 32, kind: 'http' }, 'udp-64': { lanes: 4, kind: 'udp' }, 'udp-1200': { lanes: 4, kind: 'udp' },
} as const
export type LoadName = keyof typeof loads

export interface Figure {
  readonly key: string
  readonly title: string
  readonly scale: number
  readonly digits: number
}
/** Rows of the table, by the name under which results are noted. */
export const figures: readonly Figure[] = [
  { key: 'bulk', title: 'bulk throughput, Gbit/s', scale: 8e-9, digits: 1 },
  { key: 'connect', title: 'new connections, 1/s', scale: 1, digits: 0 },
  { key: 'request', title: 'requests, kept connections, 1/s', scale: 1, digits: 0 },
  { key: 'rtt', title: 'round trip, µs', scale: 1, digits: 1 },
  { key: 'http', title: 'HTTP requests, kept connections, 1/s', scale: 1, digits: 0 },
  { key: 'http-connect', title: 'HTTP requests, a connection each, 1/s', scale: 1, digits: 0 },
  { key: 'udp-64', title: 'datagrams of 64 bytes, 1/s', scale: 1, digits: 0 },
  { key: 'udp-1200', title: 'datagrams of 1200 bytes, 1/s', scale: 1, digits: 0 },
  { key: 'udp-lost', title: 'datagrams lost of a million', scale: 1, digits: 0 },
  { key: 'cpu-gib', title: 'processor seconds a GiB (bulk)', scale: 1, digits: 2 },
  { key: 'cpu-10k', title: 'processor seconds 10,000 connections', scale: 1, digits: 2 },
  { key: 'memory', title: 'memory an idle flow, KiB', scale: 1, digits: 1 },
  { key: 'memory-udp', title: 'memory a silent flow of UDP, KiB', scale: 1, digits: 1 },
]

/** Which loads a contender is put through. */
export function loadsOf(contender: Contender): readonly LoadName[] {
  const all = Object.keys(loads) as LoadName[]
  const of = (...kinds: readonly string[]): readonly LoadName[] => all.filter((name) => kinds.includes(loads[name].kind))
  switch (contender) {
    case 'squid': case 'mitmdump': return of('http')
    case 'haproxy-plain': return of('tcp')
    case 'haproxy': return of('tcp', 'http')
    default: return all
  }
}

export type Results = ReadonlyMap<string, readonly number[]>
export interface Bar {
  readonly title: string
  readonly wanted: string
  /** Median value that was reached, undefined where it was not measured. */
  readonly reached: number | undefined
  readonly met: boolean | undefined
}

/** The bars, over medians. HAProxy is the one with splicing throughout, its better configuration for bulk. */
export function judge(median: (contender: Contender, key: string) => number | undefined): Bar[] {
  const ratio = (a: Contender, b: Contender, key: string): number | undefined => {
    const [one, other] = [median(a, key), median(b, key)]
    return one === undefined || other === undefined || other === 0 ? undefined : one / other
  }
  const atLeast = (title: string, bar: number, unit: string, reached: number | undefined): Bar => ({ title, wanted: `at least ${bar} ${unit}`, reached, met: reached === undefined ? undefined : reached >= bar })
  const atMost = (title: string, bar: number, unit: string, reached: number | undefined): Bar => ({ title, wanted: `at most ${bar} ${unit}`, reached, met: reached === undefined ? undefined : reached <= bar })
  const added = (contender: Contender): number | undefined => {
    const [with_, without] = [median(contender, 'rtt'), median('direct', 'rtt')]
    return with_ === undefined || without === undefined ? undefined : with_ - without
  }
  const [ours, theirs] = [added('sluice'), added('haproxy')]
  return [
    atLeast('bulk, no payload kept', 1.6, 'of HAProxy', ratio('sluice-no-payload', 'haproxy', 'bulk')),
    atLeast('bulk, no payload kept', 0.75, 'of direct forwarding', ratio('sluice-no-payload', 'direct', 'bulk')),
    atLeast('bulk, all payload kept', 1, 'of HAProxy', ratio('sluice', 'haproxy', 'bulk')),
    atLeast('new connections', 1.1, 'of HAProxy', ratio('sluice', 'haproxy', 'connect')),
    atLeast('requests, kept connections', 1.1, 'of HAProxy', ratio('sluice', 'haproxy', 'request')),
    atMost('added round trip', 1, 'of HAProxy', ours === undefined || theirs === undefined ? undefined : Math.max(0, ours) / theirs),
    atLeast('datagrams of 64 bytes', 0.6, 'of direct forwarding', ratio('sluice', 'direct', 'udp-64')),
    atLeast('datagrams of 1200 bytes', 0.6, 'of direct forwarding', ratio('sluice', 'direct', 'udp-1200')),
    atMost('datagrams lost', 0, 'of a million', median('sluice', 'udp-lost')),
    atMost('memory an idle flow', 4, 'KiB', median('sluice', 'memory')),
    atMost('memory a silent flow of UDP', 4, 'KiB', median('sluice', 'memory-udp')),
    atMost('processor time a GiB, no payload kept', 0.6, 'of HAProxy', ratio('sluice-no-payload', 'haproxy', 'cpu-gib')),
    atMost('processor time a GiB, all payload kept', 0.6, 'of HAProxy', ratio('sluice', 'haproxy', 'cpu-gib')),
  ]
}
