import { spawn } from 'node:child_process'
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { execa } from 'execa'

import { startRelay, type RunningProxy } from './relayDriver.ts'
import { labAddresses, makeLab, type Lab } from '../lab/makeLab.ts'
import { makePlan } from '#core/plan/makePlan.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import { renderNft } from '#core/rules/renderNft.ts'
import { renderRoutes } from '#core/rules/renderRoutes.ts'
import { findPlaces } from '#probe/places.ts'

/**
 * Sluice's relay side by side with HAProxy in its own TPROXY mode, and with plain forwarding, in one laboratory: the same rules lead to either, the same load
 * goes through each, in turns, `--rounds` times; medians and ratios. Capture is on for Sluice. Figures of different runs do not compare.
 */
const port = 7001
const lanes = { bulk: 4, connect: 32, request: 32, rtt: 1 } as const
type Figure = keyof typeof lanes
const titles: Record<Figure, { readonly title: string; readonly unit: string; readonly scale: number; readonly better: 'more' | 'less' }> = {
  bulk: { title: 'bulk throughput', unit: 'Gbit/s', scale: 8e-9, better: 'more' },
  connect: { title: 'new connections', unit: '1/s', scale: 1, better: 'more' },
  request: { title: 'requests, kept connections', unit: '1/s', scale: 1, better: 'more' },
  rtt: { title: 'round trip', unit: 'µs', scale: 1, better: 'less' },
}

type Contender = 'direct' | 'haproxy' | 'sluice' | 'sluice-no-payload'

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' }, seconds: { type: 'string', default: '2' }, threads: { type: 'string', default: '1' }, json: { type: 'boolean', default: false },
      'idle-flows': { type: 'string', default: '2000' },
    },
  })
  const rounds = bounded('rounds', values.rounds, 1, 50)
  const seconds = bounded('seconds', values.seconds, 1, 30)
  const idleFlows = bounded('idle-flows', values['idle-flows'], 0, 5000)
  const threadCounts = values.threads.split(',').map((text) => bounded('threads', text, 1, 16))
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'))
  const lab = await makeLab()
  const leave = (): void => void lab.remove().finally(() => process.exit(130))
  process.once('SIGINT', leave)
  try {
    const load = await buildLoad()
    const server = lab.spawn('server', [load, 'serve', labAddresses.ipv4.server, String(port)])
    await server.line((line) => line === 'ready')
    const report: Record<string, unknown>[] = []
    for (const threads of threadCounts) {
      report.push(await runThreads({ lab, load, folder, rounds, seconds, threads, idleFlows, quiet: values.json }))
    }
    if (values.json) process.stdout.write(`${JSON.stringify(report)}\n`)
  } finally {
    process.off('SIGINT', leave)
    await lab.remove()
    rmSync(folder, { recursive: true, force: true })
  }
}

interface RunOptions {
  readonly lab: Lab
  readonly load: string
  readonly folder: string
  readonly rounds: number
  readonly seconds: number
  readonly threads: number
  readonly idleFlows: number
  readonly quiet: boolean
}

async function runThreads({ lab, load, folder, rounds, seconds, threads, idleFlows, quiet }: RunOptions): Promise<Record<string, unknown>> {
  const say = (text: string): void => {
    if (!quiet) process.stdout.write(`${text}\n`)
  }
  say(`${threads} thread${threads === 1 ? '' : 's'} each, ${rounds} rounds of ${seconds} s, forwarded IPv4, capture on for Sluice (median; ratio to HAProxy)`)
  const results = new Map<string, number[]>()
  const note = (name: string, value: number): void => void results.set(name, [...(results.get(name) ?? []), value])
  for (let round = 0; round < rounds; round += 1) {
    // Another order each round, so that nobody always follows the same neighbour.
    const order: Contender[] = ['direct', 'haproxy', 'sluice', 'sluice-no-payload']
    for (let turn = 0; turn < round % order.length; turn += 1) order.push(order.shift() ?? 'direct')
    for (const contender of order) {
      const session = join(folder, `${contender}-${round}.sluice`)
      mkdirSync(session, { recursive: true })
      const proxy = await startContender(lab, contender, session, threads)
      const undo = proxy === undefined ? undefined : await applyRules(lab, proxy.port)
      for (const figure of Object.keys(lanes) as Figure[]) {
        if (contender === 'sluice-no-payload' && figure !== 'bulk') continue
        const before = proxy === undefined ? 0 : cpuSeconds(proxy.pid)
        const { stdout } = await lab.exec('client', [load, figure, labAddresses.ipv4.server, String(port), String(seconds), String(lanes[figure])])
        const value = Number(stdout)
        note(`${contender} ${figure}`, value)
        if (proxy !== undefined && figure === 'bulk') note(`${contender} cpu-gib`, ((cpuSeconds(proxy.pid) - before) / (value * seconds)) * 2 ** 30)
        if (proxy !== undefined && figure === 'connect') note(`${contender} cpu-10k`, ((cpuSeconds(proxy.pid) - before) / (value * seconds)) * 10_000)
      }
      if (proxy !== undefined && round === 0 && idleFlows > 0 && contender !== 'sluice-no-payload') note(`${contender} memory`, await idleMemory(lab, load, proxy.pid, idleFlows))
      await undo?.()
      await proxy?.stop()
      if (contender === 'sluice') note('sluice lost', lostShare(session))
      rmSync(session, { recursive: true, force: true })
    }
  }
  const of = (name: string): number => median(results.get(name) ?? [])
  const ratio = (value: number, other: number): string => (other === 0 || Number.isNaN(other) ? '' : `(${(value / other).toFixed(2)})`)
  const rows: string[][] = [['', 'direct', 'HAProxy', 'Sluice', 'without payload']]
  for (const figure of Object.keys(lanes) as Figure[]) {
    const { title, unit, scale } = titles[figure]
    const cell = (contender: Contender): string => {
      const value = of(`${contender} ${figure}`)
      if (Number.isNaN(value)) return ''
      const shown = (value * scale).toFixed(unit === '1/s' ? 0 : 1)
      return contender === 'haproxy' ? shown : `${shown} ${ratio(value, of(`haproxy ${figure}`))}`
    }
    rows.push([`${title}, ${unit}`, cell('direct'), cell('haproxy'), cell('sluice'), cell('sluice-no-payload')])
  }
  const extra = (title: string, name: string, digits: number): string[] => {
    const cell = (contender: Contender): string => {
      const value = of(`${contender} ${name}`)
      return Number.isNaN(value) ? '' : `${value.toFixed(digits)}${contender === 'haproxy' ? '' : ` ${ratio(value, of(`haproxy ${name}`))}`}`
    }
    return [title, '', cell('haproxy'), cell('sluice'), cell('sluice-no-payload')]
  }
  rows.push(extra('processor seconds a GiB', 'cpu-gib', 2), extra('processor seconds 10,000 connections', 'cpu-10k', 2))
  if (idleFlows > 0) rows.push(extra(`memory an idle flow, KiB (${idleFlows} flows)`, 'memory', 1))
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length))) ?? []
  for (const row of rows) say(row.map((text, column) => (column === 0 ? text.padEnd(widths[column] ?? 0) : text.padStart(widths[column] ?? 0))).join('   '))
  say(`Sluice kept all but ${(of('sluice lost') * 100).toFixed(1)} % of the payload bytes it relayed (median over rounds)`)
  return { threads, rounds, seconds, results: Object.fromEntries(results) }
}

async function startContender(lab: Lab, contender: Contender, folder: string, threads: number): Promise<RunningProxy | undefined> {
  if (contender === 'direct') return undefined
  if (contender === 'haproxy') return startHaproxy(lab, folder, threads)
  return startRelay({ enter: lab.enter('router'), program: findPlaces().relay, folder, threads, payload: contender === 'sluice', port: 50_080 })
}

/** HAProxy as its manual has it for TPROXY: a transparent listener, the destination as it was, the client's own address onward, splicing allowed. */
async function startHaproxy(lab: Lab, folder: string, threads: number): Promise<RunningProxy> {
  const listen = 50_180
  const text = `global
  nbthread ${threads}
  maxconn 6000
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option splice-auto
listen through
  bind 127.0.0.1:${listen} transparent
  server origin 0.0.0.0 source 0.0.0.0 usesrc clientip
`
  const file = join(folder, 'haproxy.cfg')
  writeFileSync(file, text)
  const child = lab.spawn('router', ['/usr/sbin/haproxy', '-db', '-f', file])
  const deadline = Date.now() + 10_000
  for (;;) {
    const { stdout } = await lab.exec('router', ['/usr/bin/ss', '-Hltn'])
    if (stdout.includes(`:${listen} `)) break
    if (Date.now() > deadline) throw new Error(`HAProxy did not start: ${child.errors()}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return { pid: child.pid, port: listen, stop: () => child.stop('SIGKILL') }
}

/** Sluice's own rules, leading to whichever listener; both contenders need the same diversion. */
async function applyRules(lab: Lab, relayPort: number): Promise<() => Promise<void>> {
  const plan = makePlan({ tcp: String(port), scope: ['forwarded'], interfaces: ['cl0'], backend: 'nft' })
  const rules = compileRules(plan, { tools: [{ backend: 'nft', usable: true, path: '/usr/sbin/nft' }], ipv6: true, interfaces: ['lo', 'cl0', 'sv0'] })
  const nft = renderNft(rules, { relayPort, owner: false, leaseSeconds: 3600 })
  const routes = renderRoutes(rules)
  await lab.exec('router', ['/usr/sbin/nft', '-f', '-'], { input: nft.load + nft.arm })
  for (const args of routes.apply) await lab.exec('router', ['/usr/sbin/ip', ...args])
  return async () => {
    await lab.exec('router', ['/usr/sbin/nft', '-f', '-'], { input: nft.remove })
    for (const args of routes.revert) await lab.exec('router', ['/usr/sbin/ip', ...args], { reject: false })
  }
}

/** The load generator, built once per source. */
async function buildLoad(): Promise<string> {
  const native = join(findPlaces().root, 'native')
  await execa('cmake', ['--preset', 'release'], { cwd: native })
  await execa('cmake', ['--build', 'build', '--target', 'sluice-load'], { cwd: native })
  return join(native, 'build', 'sluice-load')
}

/** Growth of the proxy's own resident memory by that many connected, idle flows, in KiB a flow. What the kernel holds for sockets is not in it. */
async function idleMemory(lab: Lab, load: string, pid: number, flows: number): Promise<number> {
  const before = residentKib(pid)
  const child = spawn(lab.enter('client')[0] ?? '', [...lab.enter('client').slice(1), load, 'idle', labAddresses.ipv4.server, String(port), '0', String(flows)], { stdio: ['pipe', 'pipe', 'inherit'] })
  await new Promise<void>((resolve, reject) => {
    child.stdout.once('data', () => resolve())
    child.once('exit', () => reject(new Error('the idle connections did not come up')))
  })
  const after = residentKib(pid)
  child.stdin.end()
  await new Promise((resolve) => child.once('close', resolve))
  return (after - before) / flows
}

function residentKib(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0)
}

/** User and system time of all threads so far (clock ticks are 10 ms on every Linux of today). */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / 100
}

/** Share of relayed bytes whose payload is not in the capture, out of its own facts. Only block heads are read: the file is gigabytes. */
function lostShare(folder: string): number {
  let relayed = 0
  let lost = 0
  for (const name of readdirSync(folder).filter((file) => file.endsWith('.pcapng'))) {
    const file = openSync(join(folder, name), 'r')
    const head = Buffer.alloc(12)
    for (let at = 0; readSync(file, head, 0, 12, at) === 12; at += head.readUInt32LE(4)) {
      if (head.readUInt32LE(0) !== 0x0bad || head.readUInt32LE(8) !== 32_473) continue
      const body = Buffer.alloc(head.readUInt32LE(4) - 24)
      readSync(file, body, 0, body.length, at + 20)
      const fact = JSON.parse(body.toString().split('\0')[0] ?? '{}') as { t: string; bytes?: number; bytesUp?: number; bytesDown?: number }
      if (fact.t === 'gap') lost += fact.bytes ?? 0
      if (fact.t === 'close') relayed += (fact.bytesUp ?? 0) + (fact.bytesDown ?? 0)
    }
    closeSync(file)
  }
  return relayed === 0 ? Number.NaN : lost / relayed
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length === 0 ? Number.NaN : sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2
}

function bounded(name: string, text: string, least: number, most: number): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < least || value > most) throw new Error(`--${name} takes a whole number from ${least} to ${most}, not ${text}`)
  return value
}

main().catch((error: unknown) => {
  process.stderr.write(`sluice: the benchmark failed: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
})
