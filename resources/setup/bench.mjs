// npm run bench: the relay side by side with plain forwarding, HAProxy, Squid and mitmdump, in namespaces of their own.
//   npm run bench -- [--quick] [--rounds N] [--seconds S] [--threads 1,2] [--contenders NAME,...] [--loads NAME,...] [--idle-flows N] [--json]
import { join } from 'node:path'

import { buildNative, buildNode } from './build.mjs'
import { ensureModules, ensurePackages, main, root, run, SetupError } from './lib.mjs'
import { forBench, forBuilding, forRunning } from './packages.mjs'

await main(async () => {
  if (process.getuid() !== 0) throw new SetupError('the benchmark makes network namespaces and needs root: sudo npm run bench')
  await ensurePackages([...forBuilding, ...forRunning, ...forBench], 'the benchmark')
  await ensureModules()
  await buildNative()
  await buildNode()
  return run(process.execPath, [join(root, 'build/node/bench.mjs'), ...process.argv.slice(2)])
})
