// Builds what Sluice runs from: the relay (CMake), the bundles for Node and Electron's main (Vite), the page (Vite + Svelte).
//   node resources/setup/build.mjs [--only native,node,renderer] [--force]
import { existsSync, rmSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { ensureModules, ensurePackages, main, root, runQuietly, SetupError, unlessDone } from './lib.mjs'
import { forBuilding } from './packages.mjs'

const vite = join(root, 'node_modules', 'vite', 'bin', 'vite.js')

/** The native programs, into native/build. */
export async function buildNative() {
  const results = ['native/build/sluice-relay', 'native/build/sluice-confine']
  await unlessDone('native', ['native'], results, async () => {
    await ensurePackages(forBuilding, 'building the relay')
    const native = join(root, 'native')
    // A build folder made elsewhere (a moved checkout) cannot be configured again.
    const configure = () => runQuietly('configuring the relay', 'cmake', ['--preset', 'release'], { cwd: native })
    try {
      await configure()
    } catch (error) {
      if (!(error instanceof SetupError) || !existsSync(join(native, 'build', 'CMakeCache.txt'))) throw error
      rmSync(join(native, 'build'), { recursive: true, force: true })
      await configure()
    }
    const jobs = String(Math.max(1, availableParallelism()))
    await runQuietly('building the relay', 'cmake', ['--build', 'build', '-j', jobs, '--target', 'sluice-relay', 'sluice-confine'], { cwd: native })
  })
}

/** Helper, inspector and command for Node; Electron's main and preload. */
export async function buildNode() {
  const results = ['build/node/cli.mjs', 'build/node/helper.mjs', 'build/node/inspector.mjs', 'build/main/main.js', 'build/main/preload.cjs']
  await unlessDone('node', ['electron', 'test/lab', 'test/bench', 'resources/setup/vite.node.mjs', 'package.json'], results, async () => {
    for (const kind of ['node', 'helper', 'main', 'preload']) {
      await runQuietly(`bundling ${kind}`, process.execPath, [vite, 'build', '--config', 'resources/setup/vite.node.mjs', '--mode', kind, '--logLevel', 'warn'])
    }
  })
}

/** The page, into build/renderer. */
export async function buildRenderer() {
  await unlessDone('renderer', ['renderer', 'electron/core', 'package.json'], ['build/renderer/index.html'], () =>
    runQuietly('building the window', process.execPath, [vite, 'build', '--config', 'renderer/vite.config.ts', '--logLevel', 'warn']),
  )
}

export const builders = { native: buildNative, node: buildNode, renderer: buildRenderer }

export async function buildAll() {
  for (const build of Object.values(builders)) await build()
}

if (process.argv[1] === import.meta.filename) {
  await main(async () => {
    const { values } = parseArgs({ options: { only: { type: 'string' }, force: { type: 'boolean' } } })
    await ensureModules()
    const kinds = values.only === undefined ? Object.keys(builders) : values.only.split(',')
    for (const kind of kinds) {
      const build = builders[kind]
      if (build === undefined) throw new SetupError(`--only takes ${Object.keys(builders).join(', ')}, not ${kind}`)
      if (values.force) rmSync(join(root, 'build', `.stamp-${kind}`), { force: true })
      await build()
    }
  })
}
