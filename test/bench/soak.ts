import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { runSoak } from './runSoak.ts'

/** npm run soak: thousands of flows with churn through the relay for minutes; every byte checked at both ends, memory and descriptors at the end. */
async function main(): Promise<void> {
  const { values } = parseArgs({ options: { minutes: { type: 'string', default: '3' }, flows: { type: 'string', default: '5000' }, threads: { type: 'string', default: '2' }, seed: { type: 'string', default: '1' }, 'no-payload': { type: 'boolean', default: false } } })
  const minutes = Number(values.minutes)
  const flows = Number(values.flows)
  const threads = Number(values.threads)
  if (!(minutes > 0 && minutes <= 600)) throw new Error('--minutes takes a number up to 600')
  if (!(Number.isInteger(flows) && flows >= 1 && flows <= 8000)) throw new Error('--flows takes a whole number up to 8000 (a flow is two descriptors of the relay)')
  const folder = mkdtempSync(join(tmpdir(), 'sluice-soak-'))
  try {
    const result = await runSoak({ folder, seconds: minutes * 60, flows, threads, seed: Number(values.seed), payload: !values['no-payload'], say: (line) => void process.stdout.write(`${line}\n`) })
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
