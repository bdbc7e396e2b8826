import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { execa } from 'execa'

import { divertTo } from './divertTo.ts'
import { median, proportionalKib, readFacts, residentKib } from './measure.ts'
import { startRelay } from './relayDriver.ts'
import { labAddresses, makeLab, type Place } from '../lab/makeLab.ts'
import { findPlaces } from '#probe/places.ts'

export interface SoakOptions {
  /** The relay's session goes there. */
  readonly folder: string
  readonly seconds: number
  /** At any time. */
  readonly flows: number
  readonly threads: number
  readonly seed: number
  readonly payload: boolean
  /** Instead of `seconds`: so many connections in all, of a few bytes each, as fast as they go, `flows` at a time. */
  readonly short?: number
  /** How many of a hundred flows are of UDP (never of short ones), over IPv6, of the router's own programs. Default: 20, 50, 30. */
  readonly shares?: Shares
  /** A relay built otherwise, say with a sanitizer, whose memory says nothing then. */
  readonly relay?: string
  readonly say: (line: string) => void
}
export interface Shares {
  readonly udp: number
  readonly ipv6: number
  readonly local: number
}
/** Of TCP, and of UDP: what began, and what both ends found whole. */
export interface SoakResult {
  readonly begun: number
  /** Flows that one side was to reset somewhere; all others must be whole at both ends. */
  readonly doomed: number
  readonly most: number
  readonly whole: number
  /**
   * Received by clients, of TCP. Of UDP: what had to be asked again, how often a client heard that nobody listens, answers that came after their flow's end, and what the relay's record says was lost.
   */
  readonly bytes: number
  readonly broken: number
  readonly udp: { readonly begun: number; readonly whole: number; readonly datagrams: number; readonly bytes: number; readonly resent: number; readonly refused: number; readonly late: number; readonly lost: number }
  readonly seconds: number
  /** Resident memory of the relay, KiB, and its proportional share: the median of the second quarter of the run and of the last. */
  readonly memory: readonly [number, number]
  readonly proportional: readonly [number, number]
  /** Descriptors of the relay before and after, without its pipes. */
  readonly descriptors: readonly [number, number]
  /** Flows in the record: opened, connected, closed. A ring forgets the oldest. */
  readonly recorded: readonly [number, number, number]
  /** What was not as it must be; empty is success. Wrong bytes end the run with an error instead. */
  readonly problems: readonly string[]
}

const port = 7002
const defaultShares: Shares = { udp: 20, ipv6: 50, local: 30 }
/** Seconds of silence that end a flow of UDP: much longer than a client ever pauses, and few, as finished ones hold descriptors until then. */
const udpIdle = 6
/** What waits for the disk at most (RecorderOptions in native/capture/recorder.h); a busy disk may let it fill at any time. */
const recorderKib = 32 << 10
/**
 * Per namespace, so that thousands of short flows a second find ports and places in conntrack: they would be held for minutes. Below the range there must be room for the relay's own
 * ports of UDP (native/net/own_ports.h), or it takes such as its clients come to use, and an answer then goes to whose port that is.
 */
const sysctls = (short: boolean): string[] => [
  'ipv4/ip_local_port_range=20000 65535', 'ipv4/tcp_tw_reuse=1',
  // A local flow is the relay's by conntrack's mark, which it asks for again a third of this after one of its ends (native/net/conntrack.h).
  `netfilter/nf_conntrack_tcp_timeout_time_wait=${short ? 3 : 30}`, `netfilter/nf_conntrack_tcp_timeout_close=${short ? 1 : 10}`,
]

interface Sums {
  begun: number
  whole: number
  bytes: number
  doomed: number
  most: number
  broken: number
  sent: number
  datagrams: number
  resent: number
  refused: number
  late: number
}
const nothing: Sums = { begun: 0, whole: 0, bytes: 0, doomed: 0, most: 0, broken: 0, sent: 0, datagrams: 0, resent: 0, refused: 0, late: 0 }

function added(all: readonly Partial<Sums>[]): Sums {
  const sums = { ...nothing }
  for (const one of all) for (const key of Object.keys(nothing) as (keyof Sums)[]) sums[key] += one[key] ?? 0
  return sums
}

/** Runs native/bench/soak.cc against the relay in a laboratory of its own: forwarded and local flows, both families, TCP and UDP beside each other. */
export async function runSoak(options: SoakOptions): Promise<SoakResult> {
  const { folder, seconds, flows, threads, seed, payload, short, relay: program = findPlaces().relay, say } = options
  const native = join(findPlaces().root, 'native')
  await execa('cmake', ['--preset', 'release'], { cwd: native })
  await execa('cmake', ['--build', 'build', '--target', 'sluice-soak'], { cwd: native })
  const soak = join(native, 'build', 'sluice-soak')
  const lab = await makeLab()
  try {
    // Short flows are counted in the record, so that is kept whole; it holds some 2 KiB of each.
    const relay = await startRelay({ enter: lab.enter('router'), program, folder, threads, payload, port: 50_080, udp: true, udpIdle, ...(short === undefined ? { maxBytes: 1 << 30 } : {}) })
    const divert = await divertTo(lab, port, relay.port, true, ['local'])
    for (const place of ['client', 'router', 'server'] as const) {
      for (const line of sysctls(short !== undefined)) {
        const [name = '', value = ''] = line.split('=')
        await lab.exec(place, ['sh', '-c', `test ! -e /proc/sys/net/${name} || echo '${value}' > /proc/sys/net/${name}`])
      }
    }
    const before = openDescriptors(relay.pid)
    const servers = (['ipv4', 'ipv6'] as const).map((family) => lab.spawn('server', [soak, 'serve', labAddresses[family].server, String(port)]))
    for (const server of servers) await server.line((line) => line === 'ready')

    const began = performance.now()
    const clients = splitFlows(flows, { ...(options.shares ?? defaultShares), ...(short === undefined ? {} : { udp: 0 }) }).map(({ place, family, transport, count, before: others }, index) => {
      const verb = transport === 'udp' ? 'datagrams' : short === undefined ? 'run' : 'short'
      const much = short === undefined ? seconds : Math.floor((short * (others + count)) / flows) - Math.floor((short * others) / flows)
      return { transport, running: lab.spawn(place, [soak, verb, labAddresses[family].server, String(port), String(much), String(count), String(seed * 16 + index), ...(transport === 'udp' ? [String(udpIdle)] : [])]) }
    })
    const ended = Promise.all(clients.map(({ running }) => running.ended))
    const samples = await sample(ended, relay.pid, say)
    if ((await ended).some(({ code }) => code !== 0)) throw new Error(`the clients: ${clients.map(({ running }) => running.errors()).join('')}; the servers: ${servers.map((server) => server.errors()).join('')}`)
    const took = (performance.now() - began) / 1000
    for (const server of servers) server.stdin.end()
    for (const server of servers) if ((await server.ended).code !== 0) throw new Error(`the server: ${server.errors()}`)
    const sumsOf = (transport: 'tcp' | 'udp'): Sums => added(clients.filter((client) => client.transport === transport).map(({ running }) => JSON.parse(running.output()) as Partial<Sums>))
    const [sums, udp] = [sumsOf('tcp'), sumsOf('udp')]
    const served = added(servers.map((server) => JSON.parse(server.output().split('\n').find((line) => line.startsWith('{')) ?? '{}') as Partial<Sums>))
    await relay.quiet()
    const after = openDescriptors(relay.pid)
    await divert.undo()
    await relay.stop()

    const memory = quarters(samples.map(({ resident }) => resident))
    const proportional = quarters(samples.map(({ share }) => share))
    const record = tally(folder)
    const problems: string[] = []
    if (sums.whole !== served.whole || sums.whole !== sums.begun - sums.doomed) {
      problems.push(`of ${sums.begun} flows, ${sums.doomed} of them to be reset, ${sums.whole} were whole at the clients and ${served.whole} at the servers`)
    }
    if (udp.refused > 0) problems.push(`${udp.refused} times a client of UDP heard that nobody listens`)
    if (udp.whole !== udp.begun || served.datagrams < udp.datagrams) problems.push(`of ${udp.begun} flows of UDP ${udp.whole} were whole; ${udp.datagrams} datagrams were answered and ${served.datagrams} came`)
    // A long run of short ones is no matter of how busy the disk is: little of them waits for it, and never for half of a quarter.
    const allowed = memory[0] * 1.1 + 2048 + (payload && (short === undefined || took < 60) ? recorderKib : 0)
    if (options.relay === undefined && memory[1] > allowed) problems.push(`memory grew from ${memory[0]} to ${memory[1]} KiB`)
    if (after !== before) problems.push(`${before} descriptors before, ${after} after`)
    if (record.unclosed > 0 || record.opened === 0) problems.push(`of ${record.opened} flows on record ${record.unclosed} were not closed`)
    if (short !== undefined) problems.push(...inexact(record, sums))
    return {
      begun: sums.begun, doomed: sums.doomed, most: sums.most, whole: sums.whole, bytes: sums.bytes, broken: sums.broken,
      udp: { begun: udp.begun, whole: udp.whole, datagrams: udp.datagrams, bytes: udp.bytes, resent: udp.resent, refused: udp.refused, late: udp.late, lost: record.lost },
      seconds: Math.round(took * 10) / 10, memory, proportional, descriptors: [before, after], recorded: [record.opened, record.connected, record.closed], problems,
    }
  } finally {
    await lab.remove()
  }
}

interface Part {
  readonly place: Place
  readonly family: 'ipv4' | 'ipv6'
  readonly transport: 'tcp' | 'udp'
  readonly count: number
  /** Flows of the parts in front of it. */
  readonly before: number
}

/** The sums of all parts are exact; the last takes what rounding leaves. */
function splitFlows(flows: number, { udp, ipv6, local }: Shares): Part[] {
  const parts: Omit<Part, 'before'>[] = []
  for (const [transport, ofTransport] of [['udp', udp], ['tcp', 100 - udp]] as const) {
    for (const [family, ofFamily] of [['ipv6', ipv6], ['ipv4', 100 - ipv6]] as const) {
      for (const [place, ofPlace] of [['router', local], ['client', 100 - local]] as const) parts.push({ place, family, transport, count: (flows * ofTransport * ofFamily * ofPlace) / 1e6 })
    }
  }
  let [exact, given] = [0, 0]
  return parts.flatMap((part) => {
    exact += part.count
    const before = given
    given = Math.round(exact)
    return given === before ? [] : [{ ...part, count: given - before, before }]
  })
}

interface Tally {
  readonly opened: number
  readonly connected: number
  readonly closed: number
  readonly unclosed: number
  readonly finished: number
  readonly bytesUp: number
  readonly bytesDown: number
  readonly lost: number
}

/** A ring keeps the newest segments, in which a flow that goes on is stated again: whoever is opened there must be closed there. */
function tally(folder: string): Tally {
  const open = new Set<number>()
  let [opened, connected, closed, finished, bytesUp, bytesDown, lost] = [0, 0, 0, 0, 0, 0, 0]
  for (const { t, id = 0, again, reason, bytesUp: up = 0, bytesDown: down = 0, lostUp = 0, lostDown = 0 } of readFacts(folder)) {
    if (t === 'open' && !open.has(id)) {
      open.add(id)
      opened += 1
    }
    if (t === 'connected' && again !== true) connected += 1
    if (t !== 'close') continue
    open.delete(id)
    closed += 1
    if (reason === 'finished') finished += 1
    bytesUp += up
    bytesDown += down
    lost += lostUp + lostDown
  }
  return { opened, connected, closed, unclosed: open.size, finished, bytesUp, bytesDown, lost }
}

/** Each short flow stands in the record once, with each byte of it. */
function inexact({ opened, connected, closed, finished, bytesUp, bytesDown }: Tally, { begun, sent, bytes }: Sums): string[] {
  const wrong = { opened, connected, closed, finished }
  return [
    ...Object.entries(wrong).flatMap(([what, count]) => (count === begun ? [] : [`of ${begun} flows ${count} are ${what} in the record`])),
    ...(bytesUp === sent && bytesDown === bytes ? [] : [`${sent} bytes went up and ${bytes} down, in the record ${bytesUp} and ${bytesDown}`]),
  ]
}

function quarters(samples: readonly number[]): readonly [number, number] {
  const quarter = samples.length >> 2
  return [median(samples.slice(quarter, 2 * quarter + 1)), median(samples.slice(3 * quarter))]
}

/** Memory each half second until the end, KiB. */
async function sample(ended: Promise<unknown>, pid: number, say: (line: string) => void): Promise<{ readonly resident: number; readonly share: number }[]> {
  const samples: { resident: number; share: number }[] = []
  const state = { over: false }
  const over = ended.then(() => (state.over = true))
  while (!state.over) {
    samples.push({ resident: residentKib(pid), share: proportionalKib(pid) })
    if (samples.length % 20 === 0) say(`${samples.length / 2} s: ${samples.at(-1)?.resident ?? 0} KiB, ${openDescriptors(pid)} descriptors`)
    await Promise.race([over, wait(500)])
  }
  return samples
}

/** Without pipes, of which the relay keeps some for the next flow, and raw sockets: each thread opens one a family when it first has an error of ICMP to tell. */
function openDescriptors(pid: number): number {
  const raw = new Set(['raw', 'raw6'].flatMap((name) => readFileSync(`/proc/${pid}/net/${name}`, 'utf8').split('\n').slice(1).map((line) => `socket:[${line.trim().split(/\s+/)[9] ?? ''}]`)))
  return readdirSync(`/proc/${pid}/fd`).filter((name) => {
    try {
      const target = readlinkSync(`/proc/${pid}/fd/${name}`)
      return !target.startsWith('pipe:') && !raw.has(target)
    } catch {
      return false  // closed meanwhile
    }
  }).length
}
