import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { _electron, errors, type ElectronApplication, type Page } from '@playwright/test'

import type { Desktop } from './desktop.ts'

const root = fileURLToPath(new URL('../../../', import.meta.url))

export interface RunningApp {
  readonly app: ElectronApplication
  readonly page: Page
  /** Process id of Electron's main process (Playwright knows the launcher's). */
  readonly pid: number
  /** Where new sessions are made. */
  readonly sessions: string
  readonly userData: string
  /** Quits, closing the gate at once if it is open. */
  stop(): Promise<void>
}

export interface LaunchOptions {
  /** What `nsenter --net=` takes; undefined: the network of the test itself (then no gate must be opened). */
  readonly netns?: string
  readonly user?: { readonly uid: number; readonly gid: number }
  readonly args?: readonly string[]
  /** Folder for settings and sessions; kept between two launches that share it. */
  readonly folder: string
}

/** The real app, from build/, on a desktop of the test's own. */
export async function launchApp(desktop: Desktop, options: LaunchOptions): Promise<RunningApp> {
  const finder = (await import(pathToFileURL(join(root, 'resources/setup/electron.mjs')).href)) as { findElectron: () => Promise<{ path: string }> }
  const { path } = await finder.findElectron()
  const sessions = join(options.folder, 'sessions')
  const userData = join(options.folder, 'user-data')
  const log = join(options.folder, 'log')
  mkdirSync(log, { recursive: true })
  const order = { electron: path, ...(options.netns === undefined ? {} : { netns: options.netns, log }), ...(options.user === undefined ? {} : { user: options.user }) }
  const inherited = Object.fromEntries(Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined))
  const launch = () => _electron.launch({
    executablePath: join(root, 'test/support/e2e/launcher.mjs'),
    args: [root, `--user-data-dir=${userData}`, `--sessions=${sessions}`, ...(options.args ?? [])],
    env: { ...inherited, ...desktop.env, SLUICE_E2E_ORDER: JSON.stringify(order) },
    chromiumSandbox: options.user !== undefined,
    timeout: 60_000,
  })
  // On a machine that has far more to do than it can, Playwright at times misses the beginning of an app and waits for ever; what it started is gone then.
  const app = await launch().catch((error: unknown) => {
    if (error instanceof errors.TimeoutError) return launch()
    throw error
  })
  // From the start: an app that was killed is not waited for.
  const gone = new Promise<void>((resolve) => app.once('close', () => resolve()))
  const page = await app.firstWindow()
  const pid = await app.evaluate(() => process.pid)
  return {
    app,
    page,
    pid,
    sessions,
    userData,
    async stop() {
      try {
        await app.evaluate(({ app: electron, dialog }) => {
          // The first button closes at once.
          dialog.showMessageBox = () => Promise.resolve({ response: 0, checkboxChecked: false })
          electron.quit()
        })
      } catch {
        // It is gone already.
      }
      await gone
    },
  }
}

/** Stands in for the save dialog (a program of the desktop's, which no test can press the buttons of). */
export async function answerSaveDialog(app: ElectronApplication, filePath: string): Promise<void> {
  await app.evaluate(({ dialog }, path) => {
    dialog.showSaveDialog = () => Promise.resolve({ canceled: false, filePath: path })
  }, filePath)
}

export async function answerOpenDialog(app: ElectronApplication, folder: string): Promise<void> {
  await app.evaluate(({ dialog }, path) => {
    dialog.showOpenDialog = () => Promise.resolve({ canceled: false, filePaths: [path] })
  }, folder)
}
