// npm test: everything, from types to the real window; installs what it needs by itself.
//   npm test -- [part …] [--keep-going]      parts: check unit native net page e2e demo sanitizers   (default: all)
import { parseArgs } from 'node:util'
import { join } from 'node:path'

import { buildAll, buildNative } from './build.mjs'
import { checkAll } from './check.mjs'
import { findElectron } from './electron.mjs'
import { ensureModules, ensurePackages, main, root, run, runQuietly, say, SetupError } from './lib.mjs'
import { forBuilding, forDemo, forElectron, forRunning, forTesting } from './packages.mjs'

const bin = (...path) => join(root, 'node_modules', ...path)
const node = process.execPath
const vitest = (...args) => run(node, [bin('vitest', 'vitest.mjs'), 'run', ...args])
const native = join(root, 'native')

const buildTests = (preset, folder, before = '') =>
  runQuietly(`building the relay's tests (${preset})`, 'sh', ['-c', `${before} cmake --preset ${preset} && ${before} cmake --build ${folder} -j 2`], { cwd: native, timeoutMinutes: 60 })

/** Builds with sanitizers take minutes of processor, and much of the other parts waits: these builds go on behind them, in nobody's way. */
let building
const buildSanitized = () => (building ??= ['asan', 'tsan', 'fuzz'].reduce((last, preset) => last.then(() => buildTests(preset, `build-${preset}`, 'nice -n 19')), Promise.resolve()))

async function ctest(preset, folder) {
  await buildNative()
  await buildTests(preset, folder)
  return run('ctest', ['--test-dir', folder, '--output-on-failure', '--timeout', '600', '-j', '2'], { cwd: native })
}

/** A display and a session bus of its own, so that nothing of the person's desktop is touched. */
const desktop = (args) =>
  run('dbus-run-session', ['--', 'xvfb-run', '-a', '-s', '-screen 0 1600x1000x24', node, bin('@playwright', 'test', 'cli.js'), 'test', ...args])

const needsRoot = new Set(['native', 'sanitizers', 'net', 'e2e', 'demo'])
const parts = {
  check: () => checkAll().then(() => 0),
  unit: () => vitest('--project', 'unit'),
  native: () => ctest('release', 'build'),
  net: () => vitest('--project', 'net'),
  page: () => desktop(['--project=page']),
  e2e: () => desktop(['--project=e2e']),
  demo: () => run(node, [join(root, 'resources/setup/start.mjs'), '--demo', '--headless']),
  sanitizers: async () => (await buildSanitized(), await ctest('asan', 'build-asan')) || (await ctest('tsan', 'build-tsan')) || run('sh', ['fuzz/run.sh', '20'], { cwd: native }),
}

await main(async () => {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { 'keep-going': { type: 'boolean' } } })
  const chosen = positionals.length === 0 ? Object.keys(parts) : positionals
  for (const name of chosen) if (!(name in parts)) throw new SetupError(`no such part: ${name}; there are ${Object.keys(parts).join(', ')}`)
  if (process.getuid() !== 0 && chosen.some((name) => needsRoot.has(name))) {
    throw new SetupError(`${chosen.filter((name) => needsRoot.has(name)).join(', ')} make network namespaces and need root: run sudo npm test, or choose parts: npm test -- check unit page`)
  }
  await ensurePackages([...new Set([...forBuilding, ...forRunning, ...forElectron, ...forDemo, ...forTesting])], 'testing')
  await ensureModules()
  await buildAll()
  await findElectron()
  if (chosen.includes('sanitizers')) buildSanitized().catch(() => undefined) // the part that waits for it hears of it
  const results = []
  for (const name of chosen) {
    const started = Date.now()
    say(`— ${name} —`)
    let code
    try {
      code = await parts[name]()
    } catch (error) {
      if (!(error instanceof SetupError)) throw error
      say(error.message)
      code = 1
    }
    results.push({ name, code, seconds: (Date.now() - started) / 1000 })
    if (code !== 0 && !values['keep-going']) break
  }
  say('— summary —')
  for (const { name, code, seconds } of results) say(`${code === 0 ? 'passed' : 'FAILED'}  ${name} (${seconds.toFixed(0)} s)`)
  for (const name of chosen.slice(results.length)) say(`not run ${name}`)
  return results.every(({ code }) => code === 0) ? 0 : 1
})
