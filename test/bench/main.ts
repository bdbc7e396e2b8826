import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { buildLoad } from './buildLoad.ts'
import { contenders, loads, loadsOf, type Contender, type LoadName } from './figures.ts'
import { cpuSeconds, lostShare, residentKib } from './measure.ts'
import { renderReport } from './renderReport.ts'
import { startContender, type RunningContender } from './startContender.ts'
import { labAddresses, makeLab, type Lab } from '../lab/makeLab.ts'

/**
 * Sluice's relay side by side with plain forwarding and with other people's transparent proxies, in one laboratory: the same load goes through each, in
 * turns, `--rounds` times; medians, ratios and the bars. Capture is on for Sluice. Figures of different runs do not compare.
 */
const port = 7001

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string' }, seconds: { type: 'string' }, threads: { type: 'string', default: '1,2' }, json: { type: 'boolean', default: false }, quick: { type: 'boolean', default: false },
      contenders: { type: 'string' }, loads: { type: 'string' }, 'idle-flows': { type: 'string', default: '5000' },
    },
  })
  const rounds = bounded('rounds', values.rounds ?? (values.quick ? '1' : '3'), 1, 50)
  const seconds = bounded('seconds', values.seconds ?? (values.quick ? '1' : '2'), 1, 30)
  const idleFlows = bounded('idle-flows', values['idle-flows'], 0, 9000)
  const threadCounts = (values.quick ? '1' : values.threads).split(',').map((text) => bounded('threads', text, 1, 16))
  const who = chosen('contenders', values.contenders, contenders)
  const what = chosen('loads', values.loads, Object.keys(loads) as LoadName[])
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'))
  const lab = await makeLab()
  const leave = (): void => void lab.remove().finally(() => process.exit(130))
  process.once('SIGINT', leave)
  try {
    const load = await buildLoad()
    // Loss is not what is measured. BBR, which some machines are set to, paces by timers, and then those would be.
    for (const place of ['client', 'router', 'server'] as const) await lab.exec(place, ['sysctl', '-qw', 'net.ipv4.tcp_congestion_control=reno'])
    const server = lab.spawn('server', [load, 'serve', labAddresses.ipv4.server, String(port)])
    await server.line((line) => line === 'ready')
    const report: unknown[] = []
    for (const [index, threads] of threadCounts.entries()) {
      // Squid and mitmdump are single-threaded: a second look at them would say nothing new.
      const contestants = index === 0 ? who : who.filter((name) => name !== 'squid' && name !== 'mitmdump' && name !== 'haproxy-plain')
      const results = await runRounds({ lab, load, folder, rounds, seconds, threads, idleFlows: index === 0 ? idleFlows : 0, contestants, what })
      report.push({ threads, rounds, seconds, results: Object.fromEntries(results) })
      if (!values.json) process.stdout.write(renderReport(results, { contestants, threads, rounds, seconds, idleFlows }))
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
  readonly contestants: readonly Contender[]
  readonly what: readonly LoadName[]
}

async function runRounds(options: RunOptions): Promise<Map<string, number[]>> {
  const { lab, folder, rounds, threads, idleFlows, contestants } = options
  const results = new Map<string, number[]>()
  const note = (name: string, value: number): void => void results.set(name, [...(results.get(name) ?? []), value])
  for (let round = 0; round < rounds; round += 1) {
    // Another order each round, so that nobody always follows the same neighbour.
    const turn = round % contestants.length
    for (const contender of [...contestants.slice(turn), ...contestants.slice(0, turn)]) {
      const session = join(folder, `${contender}-${round}.sluice`)
      mkdirSync(session, { recursive: true })
      const running = await startContender(contender, { lab, folder: session, threads, port })
      try {
        await measure(options, contender, running, note)
        const kept = contender === 'sluice' || contender === 'haproxy'
        if (running !== undefined && round === 0 && idleFlows > 0 && kept) note(`${contender} memory`, await idleMemory(options, 'idle', running.pid))
        if (running !== undefined && round === 0 && idleFlows > 0 && contender === 'sluice') note('sluice memory-udp', await idleMemory(options, 'udp-idle', running.pid))
      } finally {
        await running?.stop()
      }
      if (contender === 'sluice') note('sluice lost', lostShare(session))
      rmSync(session, { recursive: true, force: true })
    }
  }
  return results
}

async function measure({ lab, load, seconds, what }: RunOptions, contender: Contender, running: RunningContender | undefined, note: (name: string, value: number) => void): Promise<void> {
  for (const name of loadsOf(contender).filter((each) => what.includes(each))) {
    const before = running === undefined ? 0 : cpuSeconds(running.pid)
    const { stdout } = await lab.exec('client', [load, name, labAddresses.ipv4.server, String(port), String(seconds), String(loads[name].lanes)])
    const [value = Number.NaN, lost] = stdout.trim().split(' ').map(Number)
    note(`${contender} ${name}`, value)
    if (lost !== undefined) note(`${contender} udp-lost`, lost)
    if (running === undefined) continue
    const spent = cpuSeconds(running.pid) - before
    if (name === 'bulk') note(`${contender} cpu-gib`, (spent / (value * seconds)) * 2 ** 30)
    if (name === 'connect') note(`${contender} cpu-10k`, (spent / (value * seconds)) * 10_000)
  }
}

/** Growth of the proxy's own resident memory by that many connected, idle flows, in KiB a flow. What the kernel holds for sockets is not in it. */
async function idleMemory({ lab, load, idleFlows: flows }: RunOptions, verb: string, pid: number): Promise<number> {
  const before = residentKib(pid)
  const [program, ...args] = ['nsenter', ...lab.enter('client').slice(1), load, verb, labAddresses.ipv4.server, String(port), '0', String(flows)]
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  await new Promise<void>((resolve, reject) => {
    child.stdout.once('data', () => resolve())
    child.once('exit', () => reject(new Error('the idle connections did not come up')))
  })
  const after = residentKib(pid)
  child.stdin.end()
  await new Promise((resolve) => child.once('close', resolve))
  return (after - before) / flows
}

function chosen<Name extends string>(option: string, text: string | undefined, all: readonly Name[]): readonly Name[] {
  if (text === undefined) return all
  const unknown = text.split(',').filter((name) => !(all as readonly string[]).includes(name))
  if (unknown.length > 0) throw new Error(`--${option} takes ${all.join(', ')}, not ${unknown.join(', ')}`)
  return all.filter((name) => text.split(',').includes(name))
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
