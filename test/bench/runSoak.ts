import { readdirSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { execa } from 'execa'

import { divertTo } from './divertTo.ts'
import { readFacts, residentKib } from './measure.ts'
import { startRelay } from './relayDriver.ts'
import { labAddresses, makeLab } from '../lab/makeLab.ts'
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
  readonly say: (line: string) => void
}
export interface SoakResult {
  readonly begun: number
  /** Flows that one side was to reset somewhere; all others must be whole at both ends. */
  readonly doomed: number
  readonly most: number
  readonly whole: number
  readonly bytes: number
  readonly broken: number
  /** Resident memory of the relay, KiB: the most of the second and of the last quarter. */
  readonly memory: readonly [number, number]
  /** Descriptors of the relay before and after, without its pipes. */
  readonly descriptors: readonly [number, number]
  /** What was not as it must be; empty is success. Wrong bytes end the run with an error instead. */
  readonly problems: readonly string[]
}

const port = 7002
/** What waits for the disk at most (RecorderOptions in native/capture/recorder.h); a busy disk may let it fill at any time. */
const recorderKib = 32 << 10
/** Per namespace, so that thousands of short flows a second find ports and places in conntrack: they would be held for minutes. */
const sysctls = [
  'ipv4/ip_local_port_range=1024 65535', 'ipv4/tcp_tw_reuse=1',
  'netfilter/nf_conntrack_tcp_timeout_time_wait=3', 'netfilter/nf_conntrack_tcp_timeout_close=1',
]

/** Runs native/bench/soak.cc against the relay in a laboratory of its own. */
export async function runSoak(options: SoakOptions): Promise<SoakResult> {
  const { folder, seconds, flows, threads, seed, payload, say } = options
  const native = join(findPlaces().root, 'native')
  await execa('cmake', ['--preset', 'release'], { cwd: native })
  await execa('cmake', ['--build', 'build', '--target', 'sluice-soak'], { cwd: native })
  const program = join(native, 'build', 'sluice-soak')
  const lab = await makeLab()
  try {
    const relay = await startRelay({ enter: lab.enter('router'), program: findPlaces().relay, folder, threads, payload, port: 50_080, maxBytes: 1 << 30 })
    const divert = await divertTo(lab, port, relay.port)
    for (const place of ['client', 'router', 'server'] as const) {
      for (const line of sysctls) {
        const [name = '', value = ''] = line.split('=')
        await lab.exec(place, ['sh', '-c', `test ! -e /proc/sys/net/${name} || echo '${value}' > /proc/sys/net/${name}`])
      }
    }
    const before = openDescriptors(relay.pid)
    const address = labAddresses.ipv4.server
    const server = lab.spawn('server', [program, 'serve', address, String(port)])
    await server.line((line) => line === 'ready')
    const client = lab.spawn('client', [program, 'run', address, String(port), String(seconds), String(flows), String(seed)])
    const samples = await sample(client.ended, relay.pid, say)
    const { code } = await client.ended
    if (code !== 0) throw new Error(`the client: ${client.errors()}; the server: ${server.errors()}`)
    server.stdin.end()
    if ((await server.ended).code !== 0) throw new Error(`the server: ${server.errors()}`)
    const sums = JSON.parse(client.output()) as { begun: number; doomed: number; most: number; whole: number; bytes: number; broken: number }
    const served = JSON.parse(server.output().split('\n').find((line) => line.startsWith('{')) ?? '{}') as { whole: number }
    await relay.quiet()
    const after = openDescriptors(relay.pid)
    await divert.undo()
    await relay.stop()

    const quarter = samples.length >> 2
    const memory = [Math.max(...samples.slice(quarter, 2 * quarter + 1)), Math.max(...samples.slice(3 * quarter))] as const
    // A ring keeps the newest segments, in which a flow that goes on is stated again: whoever is opened there must be closed there.
    const opened = new Set<number>()
    const closed = new Set<number>()
    for (const { t, id = 0 } of readFacts(folder)) {
      if (t === 'open') opened.add(id)
      if (t === 'close') closed.add(id)
    }
    const unclosed = [...opened].filter((id) => !closed.has(id)).length
    const problems: string[] = []
    if (sums.whole !== served.whole || sums.whole !== sums.begun - sums.doomed) {
      problems.push(`of ${sums.begun} flows, ${sums.doomed} of them to be reset, ${sums.whole} were whole at the client and ${served.whole} at the server`)
    }
    if (memory[1] > memory[0] * 1.1 + 2048 + (payload ? recorderKib : 0)) problems.push(`memory grew from ${memory[0]} to ${memory[1]} KiB`)
    if (after !== before) problems.push(`${before} descriptors before, ${after} after`)
    if (unclosed > 0 || opened.size === 0) problems.push(`of ${opened.size} flows on record ${unclosed} were not closed`)
    return { ...sums, memory, descriptors: [before, after], problems }
  } finally {
    await lab.remove()
  }
}

/** Resident memory each half second until the end. */
async function sample(ended: Promise<unknown>, pid: number, say: (line: string) => void): Promise<number[]> {
  const samples: number[] = []
  const state = { over: false }
  const over = ended.then(() => (state.over = true))
  while (!state.over) {
    samples.push(residentKib(pid))
    if (samples.length % 20 === 0) say(`${samples.length / 2} s: ${samples.at(-1) ?? 0} KiB, ${openDescriptors(pid)} descriptors`)
    await Promise.race([over, wait(500)])
  }
  return samples
}

/** Without pipes: the relay keeps some for the next flow. */
function openDescriptors(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).filter((name) => {
    try {
      return !readlinkSync(`/proc/${pid}/fd/${name}`).startsWith('pipe:')
    } catch {
      return false  // closed meanwhile
    }
  }).length
}
