// npm start: sets up what is missing and opens the app.
//   npm start                              the app
//   npm start -- --demo                    a laboratory of network namespaces with real traffic, the app on its router
//   npm start -- --demo --headless [--big] [--out DIR]     the same job in a terminal: leaves a session, a HAR, a pcapng
import { join } from 'node:path'

import { buildAll, buildNative, buildNode } from './build.mjs'
import { findElectron } from './electron.mjs'
import { ensureModules, ensurePackages, main, root, run, say, SetupError } from './lib.mjs'
import { forDemo, forElectron, forRunning } from './packages.mjs'

const hasDisplay = () => Boolean(process.env.DISPLAY || process.env.WAYLAND_DISPLAY)

const headlessForm = `there is no display here (neither DISPLAY nor WAYLAND_DISPLAY is set), so no window can be opened.
The command does the same in a terminal:
    npx sluice doctor
    npx sluice capture --tcp 80,443 -o first.sluice       (as root; Ctrl+C closes the gate)
    npx sluice flows first.sluice
    npm start -- --demo --headless                        (a laboratory with traffic of its own)`

await main(async () => {
  const args = process.argv.slice(2)
  const demo = args.includes('--demo')
  const headless = args.includes('--headless')
  if (headless && !demo) throw new SetupError('--headless goes with --demo; without the demo, the command is: npx sluice capture --tcp 80 -o NAME.sluice')
  await ensurePackages([...forRunning, ...(headless ? [] : hasDisplay() ? forElectron : []), ...(demo ? forDemo : [])], demo ? 'the demo' : 'running')
  await ensureModules()
  if (headless) {
    await buildNative()
    await buildNode()
  } else await buildAll()
  const windowed = !headless
  if (windowed && !hasDisplay()) {
    say(headlessForm)
    return 1
  }
  const electron = windowed ? await findElectron() : undefined
  if (electron?.fallback) say(`using Electron ${electron.version} out of an npm package, as the official one (45) is not installed here`)
  if (demo) {
    const own = args.filter((arg) => arg !== '--demo')
    const demoArgs = [join(root, 'build/node/demo.mjs'), ...own, ...(electron ? ['--electron', electron.path] : [])]
    if (process.getuid() === 0) return run(process.execPath, demoArgs)
    say('the laboratory is made of network namespaces, which only root can make: asking sudo')
    return run('sudo', ['--preserve-env=DISPLAY,WAYLAND_DISPLAY,XAUTHORITY,XDG_RUNTIME_DIR,DBUS_SESSION_BUS_ADDRESS', process.execPath, ...demoArgs])
  }
  // Chromium refuses to sandbox root's own window; whoever starts it as root has decided so.
  const sandbox = process.getuid() === 0 ? ['--no-sandbox'] : []
  return run(electron.path, [...sandbox, root, ...args])
})
