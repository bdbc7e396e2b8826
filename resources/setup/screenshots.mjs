// The README's pictures, from the real app with real traffic in a laboratory; needs root.
//   node resources/setup/screenshots.mjs        every view in both themes into test-results/screenshots, the README's into resources/screenshots
import { copyFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'

import { buildAll } from './build.mjs'
import { findElectron } from './electron.mjs'
import { ensureModules, ensurePackages, main, root, run, say } from './lib.mjs'
import { forDemo, forElectron, forRunning, forTesting } from './packages.mjs'

const pictures = ['window-light.png', 'window-dark.png', 'details-light.png', 'preview-light.png', 'tray-menu.png']

await main(async () => {
  await ensurePackages([...forRunning, ...forElectron, ...forDemo, ...forTesting], 'screenshots')
  await ensureModules()
  await buildAll()
  await findElectron()
  const all = join(root, 'test-results', 'screenshots')
  const code = await run(process.execPath, [join(root, 'node_modules/@playwright/test/cli.js'), 'test', '--project=screenshots'], { env: { ...process.env, SLUICE_SCREENSHOTS: all } })
  if (code !== 0) return code
  const kept = join(root, 'resources', 'screenshots')
  mkdirSync(kept, { recursive: true })
  for (const name of pictures) copyFileSync(join(all, name), join(kept, name))
  say(`${pictures.length} pictures for the README in resources/screenshots, all views in test-results/screenshots`)
  return 0
})
