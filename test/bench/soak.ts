import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { runSoak } from './runSoak.ts'

/**
 * npm run soak: thousands of flows with churn through the relay for minutes, or (`--short`) so many short ones as fast as they go; every byte checked at both ends, memory,
 * descriptors and the record at the end.
 */
async function main(): Promise<void> {
  const { values } = parseArgs({ options: { minutes: { type: 'string', default: '3' }, flows: { type: 'string' }, threads: { type: 'string', default: '2' }, seed: { type: 'string', default: '1' }, 'no-payload': { type: 'boolean', default: false },
    short: { type: 'string' }, udp: { type: 'string', default: '20' }, ipv6: { type: 'string', default: '50' }, local: { type: 'string', default: '30' }, relay: { type: 'string' } } })
  const minutes = Number(values.minutes)
  const short = values.short === undefined ? undefined : Number(values.short)
  const flows = Number(values.flows ?? (short === undefined ? '5000' : '256'))
  const threads = Number(values.threads)
  if (!(minutes > 0 && minutes <= 600)) throw new Error('--minutes takes a number up to 600')
  if (!(Number.isInteger(flows) && flows >= 1 && flows <= 8000)) throw new Error('--flows takes a whole number up to 8000 (a flow is two descriptors of the relay)')
  if (short !== undefined && !(Number.isInteger(short) && short >= 1 && short <= 10_000_000)) throw new Error('--short takes a whole number up to 10000000')
  const shares = { udp: Number(values.udp), ipv6: Number(values.ipv6), local: Number(values.local) }
  for (const [name, share] of Object.entries(shares)) if (!(share >= 0 && share <= 100)) throw new Error(`--${name} takes how many of a hundred flows`)
  const folder = mkdtempSync(join(tmpdir(), 'sluice-soak-'))
  try {
    const result = await runSoak({ folder, seconds: minutes * 60, flows, threads, seed: Number(values.seed), payload: !values['no-payload'], shares, ...(short === undefined ? {} : { short }), ...(values.relay === undefined ? {} : { relay: values.relay }), say: (line) => void process.stdout.write(`${line}\n`) })
    process.stdout.write(`${JSON.stringify(result)}\n`)
    if (result.problems.length > 0) throw new Error(result.problems.join('; '))
    process.stdout.write('every byte arrived as it was sent; memory and descriptors are where they were\n')
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

main().catch((error: unknown) => {
  process.stderr.write(`sluice: the soak failed: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
})
