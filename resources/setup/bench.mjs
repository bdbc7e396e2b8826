// What is measured and what is tried for long: the benchmark, the soak and the cost of the rules, as the usage says.
import { join } from 'node:path'

import { buildNative, buildNode } from './build.mjs'
import { ensureModules, ensurePackages, main, root, run, SetupError } from './lib.mjs'
import { forBench, forBuilding, forRunning } from './packages.mjs'

const usage = `npm run bench: the relay side by side with plain forwarding, HAProxy, Squid and mitmdump, in network namespaces of their own. Figures of different runs do not compare.

  npm run bench -- [--quick] [--rounds 3] [--seconds 2] [--threads 1,2] [--contenders NAME,...] [--loads NAME,...] [--idle-flows 5000] [--json]

npm run soak: thousands of flows with churn for minutes, every byte checked at both ends; --udp, --ipv6 and --local are percents of them.

  npm run soak -- [--minutes 3] [--flows 5000] [--udp 20] [--ipv6 50] [--local 30] [--threads 2] [--seed 1] [--no-payload] [--relay PROGRAM]
  npm run soak -- --short 1000000 [--flows 256] ...    so many short connections, as fast as they go, each exact in the record

npm run cost: what the gate itself costs on each backend: how long opening takes, and what a packet pays for a thousand ports and five hundred exclusions.

  npm run cost -- [--runs 9] [--rounds 5] [--seconds 1] [--backends NAME,...]
`

await main(async () => {
  const words = process.argv.slice(2)
  if (words.includes('--help') || words.includes('-h')) {
    process.stdout.write(usage)
    return 0
  }
  if (process.getuid() !== 0) throw new SetupError('the benchmark makes network namespaces and needs root: sudo npm run bench')
  await ensurePackages([...forBuilding, ...forRunning, ...forBench], 'the benchmark')
  await ensureModules()
  await buildNative()
  await buildNode()
  const other = ['soak', 'cost'].find((name) => name === words[0])
  return run(process.execPath, [join(root, `build/node/${other ?? 'bench'}.mjs`), ...(other === undefined ? words : words.slice(1))])
})
