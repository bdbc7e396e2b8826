import { join } from 'node:path'
import { app } from 'electron'

import { version } from '#core/contract/version.ts'

import { parseOptions } from './options.ts'
import { runApp } from './runApp.ts'
import { registerScheme } from './scheme.ts'

// What must happen before Electron is ready; the app itself is runApp.
const options = parseOptions(process.argv, process.cwd())
if (options.version) {
  process.stdout.write(`Sluice ${version} (Electron ${process.versions.electron})\n`)
  app.exit(0)
} else {
  app.setName('Sluice')
  // Said outright, as the default follows whichever name the app bears at the moment.
  app.setPath('userData', options.userData ?? join(app.getPath('appData'), 'sluice'))
  registerScheme()
  if (app.requestSingleInstanceLock({ open: options.open ?? null })) {
    void app.whenReady().then(() => runApp(options))
  } else {
    process.stderr.write('sluice: it is running already; its window was brought up\n')
    app.exit(0)
  }
}
