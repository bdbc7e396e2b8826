import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import type { Backend } from '#core/plan/plan.ts'
import { labAddresses, makeLab, type Lab } from '../lab/makeLab.ts'
import { buildLoad } from './buildLoad.ts'
import { median } from './measure.ts'
import { openGate, type OpenedGate } from './openings.ts'
import { measurePassing, passedPort, passings, takenPort, type PassingKey, type Size } from './packetCost.ts'

/**
 * What the gate itself costs, in laboratories of its own, on each backend: how long opening takes, and what a packet pays for a thousand ports and five hundred exclusions. Medians; figures of
 * different runs do not compare.
 */
const openingBar = 150
/** Of what the plan of one port lets through; what is missing to 1 is the laboratory's noise. */
const passingBar = 0.85
const backends: readonly Backend[] = ['nft', 'iptables', 'iptables-legacy']

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { runs: { type: 'string', default: '9' }, rounds: { type: 'string', default: '5' }, seconds: { type: 'string', default: '1' }, backends: { type: 'string' } } })
  const [runs, rounds, seconds] = [bounded('runs', values.runs, 0, 100), bounded('rounds', values.rounds, 0, 20), bounded('seconds', values.seconds, 1, 30)]
  const chosen = backends.filter((backend) => values.backends === undefined || values.backends.split(',').includes(backend))
  const folder = mkdtempSync(join(tmpdir(), 'sluice-cost-'))
  const load = rounds === 0 ? '' : await buildLoad()
  try {
    for (const backend of chosen) if (runs > 0) await withLab((lab) => showOpenings(lab, backend, folder, runs))
    for (const backend of chosen) if (rounds > 0) await withLab((lab) => showPassing(lab, load, backend, folder, rounds, seconds))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function withLab(work: (lab: Lab) => Promise<void>): Promise<void> {
  const lab = await makeLab()
  try {
    await work(lab)
  } finally {
    await lab.remove()
  }
}

/** TCP of programs and devices, both families. (Forwarded UDP may have to wait until conntrack has looked round, which is no cost.) */
async function showOpenings(lab: Lab, backend: Backend, folder: string, runs: number): Promise<void> {
  const openings: OpenedGate[] = []
  for (let run = 0; run < runs; run += 1) {
    const gate = await openGate(lab, { tcp: '80,443,8000-8100', backend }, folder)
    openings.push(gate)
    await gate.close()
  }
  const times = openings.map(({ milliseconds }) => milliseconds)
  const steps = [...(openings[0]?.steps.keys() ?? [])].map((step) => `${step} ${median(openings.map((each) => each.steps.get(step) ?? 0)).toFixed(0)}`)
  say(median(times) <= openingBar, `opening by ${backend}: ${median(times).toFixed(0)} ms (median of ${String(runs)}, ${Math.min(...times).toFixed(0)} to ${Math.max(...times).toFixed(0)}), wanted at most ${String(openingBar)}`)
  process.stdout.write(`        ${steps.join(', ')}\n`)
}

async function showPassing(lab: Lab, load: string, backend: Backend, folder: string, rounds: number, seconds: number): Promise<void> {
  for (const place of ['client', 'router', 'server'] as const) await lab.exec(place, ['sysctl', '-qw', 'net.ipv4.tcp_congestion_control=reno'])
  for (const port of [takenPort, passedPort]) await lab.spawn('server', [load, 'serve', labAddresses.ipv4.server, String(port)]).line((line) => line === 'ready')
  const found = new Map<`${Size} ${PassingKey}`, number[]>()
  for (let round = 0; round < rounds; round += 1) {
    // In turns, so that neither always follows the other.
    for (const size of round % 2 === 0 ? (['one', 'many'] as const) : (['many', 'one'] as const)) {
      for (const [key, value] of await measurePassing(lab, load, backend, size, folder, seconds)) found.set(`${size} ${key}`, [...(found.get(`${size} ${key}`) ?? []), value])
    }
  }
  for (const { key, title } of passings) {
    const [one, many] = [median(found.get(`one ${key}`) ?? []), median(found.get(`many ${key}`) ?? [])]
    say(many / one >= passingBar, `${backend}, ${title}: ${one.toFixed(0)} with one port, ${many.toFixed(0)} with 1,000 ports and 500 exclusions (${(many / one).toFixed(2)}), wanted at least ${String(passingBar)}`)
  }
}

function say(met: boolean, text: string): void {
  process.stdout.write(`${met ? 'met   ' : 'MISSED'}  ${text}\n`)
}

function bounded(name: string, text: string, least: number, most: number): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < least || value > most) throw new Error(`--${name} takes a whole number from ${String(least)} to ${String(most)}, not ${text}`)
  return value
}

main().catch((error: unknown) => {
  process.stderr.write(`sluice: the benchmark failed: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
})
