// npm run faults: the fault table of test/net/faults, as the usage says.
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { buildNative } from './build.mjs'
import { ensureModules, ensurePackages, main, root, run, SetupError } from './lib.mjs'
import { forBuilding, forRunning, forTesting } from './packages.mjs'

const usage = `npm run faults: whatever is killed, frozen, lost or taken away, at whatever step, the network works and nothing of ours remains (or is back). At the end, by what holds the
rules: how long it took until what others took away was back.

  npm run faults -- [--only PART_OF_A_NAME] [--sample [--seed N]]      without these all of it; --sample: as many as the tests run, those or the seed's
`

await main(async () => {
  if (process.argv.slice(2).some((word) => word === '--help' || word === '-h')) {
    process.stdout.write(usage)
    return 0
  }
  const { values } = parseArgs({ options: { only: { type: 'string' }, sample: { type: 'boolean' }, seed: { type: 'string' } } })
  if (values.seed !== undefined && !/^\d{1,9}$/.test(values.seed)) throw new SetupError(`--seed is a number, not ${values.seed}`)
  if (process.getuid() !== 0) throw new SetupError('the fault table makes network namespaces and needs root: sudo npm run faults')
  await ensurePackages([...forBuilding, ...forRunning, ...forTesting], 'the fault table')
  await ensureModules()
  await buildNative()
  const env = { ...process.env, ...(values.sample ? {} : { FAULTS: 'all' }), ...(values.seed === undefined ? {} : { FAULTS_SEED: values.seed }), ...(values.only === undefined ? {} : { FAULTS_ONLY: values.only }) }
  // Most of the time a case waits for somebody's patience to end, so many go beside one another.
  return run(process.execPath, [join(root, 'node_modules/vitest/vitest.mjs'), 'run', '--project', 'net', '--maxConcurrency', '8', 'test/net/faults'], { env })
})
