// Types and lint: everything that can be said of the sources without running them.
import { join } from 'node:path'

import { ensureModules, main, root, runQuietly } from './lib.mjs'

const bin = (...path) => join(root, 'node_modules', ...path)

export async function checkAll() {
  const node = process.execPath
  const types = async () => {
    await runQuietly('types of core (no Node, no DOM)', node, [bin('typescript', 'bin', 'tsc'), '-p', 'electron/core'])
    await runQuietly('types', node, [bin('typescript', 'bin', 'tsc'), '-p', '.'])
    await runQuietly('types of the window', node, [bin('svelte-check', 'bin', 'svelte-check'), '--tsconfig', 'tsconfig.json', '--workspace', 'renderer', '--fail-on-warnings'])
  }
  // Each takes one processor; both end before a fault of either is told.
  const results = await Promise.allSettled([types(), runQuietly('lint', node, [bin('eslint', 'bin', 'eslint.js'), '.', '--max-warnings', '0'])])
  const failed = results.find(({ status }) => status === 'rejected')
  if (failed) throw failed.reason
}

if (process.argv[1] === import.meta.filename) {
  await main(async () => {
    await ensureModules()
    await checkAll()
  })
}
