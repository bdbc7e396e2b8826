// npm run bench: the relay side by side with plain forwarding, HAProxy, Squid and mitmdump, in namespaces of their own.
//   npm run bench -- [--quick] [--rounds N] [--seconds S] [--threads 1,2] [--contenders NAME,...] [--loads NAME,...] [--idle-flows N] [--json]
// npm run soak: thousands of flows with churn for minutes, every byte checked at both ends.
//   npm run soak -- [--minutes 3] [--flows 5000] [--udp 0] [--ipv6 50] [--local 0] [--threads 2] [--seed 1] [--no-payload] [--relay PROGRAM]
//   npm run soak -- --short 1000000 [--flows 256] …            so many short connections, as fast as they go, each exact in the record
// npm run cost: what the gate itself costs on each backend: how long opening takes, and what a packet pays for a thousand ports and five hundred exclusions.
//   npm run cost -- [--runs 9] [--rounds 5] [--seconds 1] [--backends NAME,...]
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
  const words = process.argv.slice(2)
  const other = ['soak', 'cost'].find((name) => name === words[0])
  return run(process.execPath, [join(root, `build/node/${other ?? 'bench'}.mjs`), ...(other === undefined ? words : words.slice(1))])
})
