import { access, mkdir } from 'node:fs/promises'
import { availableParallelism, homedir, userInfo } from 'node:os'
import { basename, join } from 'node:path'
import { app, BrowserWindow, clipboard, dialog, nativeTheme, powerMonitor, session, shell } from 'electron'

import type { BridgeEvents } from '#core/contract/bridge.ts'
import { toFailureReport } from '#core/contract/failure.ts'
import { failureAdvice } from '#core/contract/failureAdvice.ts'
import { version } from '#core/contract/version.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import { startHelper } from '#elevate/startHelper.ts'
import { startControlServer } from '#gate/controlServer.ts'
import { Gate } from '#gate/gate.ts'
import { createSessionFolder } from '#gate/sessionFolder.ts'
import { digestRules } from '#probe/digestRules.ts'
import { runDoctor } from '#probe/doctor.ts'
import { listInterfaces } from '#probe/interfaces.ts'
import { findPlaces } from '#probe/places.ts'
import { listPorts } from '#probe/ports.ts'
import { readActions } from '#probe/readActions.ts'
import { listSuggestions } from '#probe/suggestions.ts'
import { startInspector } from '#session/inspectorClient.ts'

import { AppModel } from './appModel.ts'
import type { BridgeHandlers } from './answerCall.ts'
import { emitTo, serveBridge } from './bridge.ts'
import { previewChoice } from './choice.ts'
import { Exporter, exportName } from './exporter.ts'
import { lockDownContents, lockDownSession } from './lockDown.ts'
import { machineFacts } from './machineFacts.ts'
import { createMenu } from './menu.ts'
import type { AppOptions } from './options.ts'
import { quitQuestion } from './quit.ts'
import { serveScheme } from './scheme.ts'
import { SettingsFile } from './settingsFile.ts'
import { createTray } from './tray.ts'
import { hasTrayHost } from './trayHost.ts'
import { trayFace, type TrayAction } from './trayMenu.ts'
import { createWindow } from './window.ts'

/** The app: makes its parts and joins them. Everything that decides something is in a part of its own. */
export async function runApp(options: AppOptions): Promise<void> {
  const { root } = findPlaces()
  const icons = join(root, 'resources', 'icons')
  const settings = new SettingsFile(join(app.getPath('userData'), 'settings.json'))
  if (settings.setAside !== undefined) warn(`the settings could not be read and were put aside as ${settings.setAside}`)
  settings.onWriteError = (error) => warn(`the settings could not be kept: ${error.message}`)

  lockDownContents()
  const pageSession = session.fromPartition('sluice', { cache: false })
  lockDownSession(pageSession)
  serveScheme(pageSession, join(root, 'build', 'renderer'))

  let window: BrowserWindow | undefined
  let quitting = false
  const contents = (): Electron.WebContents | undefined => (window === undefined || window.isDestroyed() ? undefined : window.webContents)

  const emit = <Name extends keyof BridgeEvents>(name: Name, value: BridgeEvents[Name]): void => {
    emitTo(contents(), name, value)
    if (name !== 'changed' && name !== 'navigate' && name !== 'exportProgress') refresh()
  }
  const gate = new Gate({
    startHelper,
    digest: async (plan, facts) => digestRules(compileRules(plan, facts ?? (await machineFacts()))),
  })
  const model: AppModel = new AppModel({
    gate,
    startControl: (folder, onContainers) => startControlServer({ gate, session: folder, version, onContainers }),
    startInspector,
    createSession: createSessionFolder,
    settings,
    sessionsFolder: async () => {
      const folder = options.sessions ?? (await usualSessionsFolder())
      await mkdir(folder, { recursive: true, mode: 0o700 })
      return folder
    },
    threads: Math.max(1, Math.min(4, availableParallelism())),
    version,
    emit,
  })
  const exporter = new Exporter({
    onProgress: (done, of) => emit('exportProgress', { done, of }),
  })

  // Read by the tray before our own theme hides what the system's is.
  const tray = createTray(icons, (action) => void actOnTray(action))
  nativeTheme.themeSource = settings.settings.theme
  const setMenu = createMenu({
    toggle: () => void attempt(() => model.toggleGate()),
    closeGate: () => void attempt(() => model.closeGate()),
    resumeGate: () => void attempt(() => model.resumeGate()),
    openSession: () => void attempt(openSession),
    showRecording: () => {
      const folder = model.hiddenRecording()
      if (folder !== undefined) void attempt(() => model.openSession(folder))
    },
    showFolder: () => void attempt(() => showFolder()),
    navigate,
    theme: (theme) => model.changeSettings({ theme }),
    quit: () => app.quit(),
  })

  function refresh(): void {
    if (quitting) return
    const state = model.gate()
    const hasSession = model.session() !== null
    tray.show(trayFace(state, settings.settings, hasSession, Date.now()))
    setMenu({ gate: state, theme: settings.settings.theme, hasSession, hiddenRecording: model.hiddenRecording() !== undefined, developer: !app.isPackaged })
    if (nativeTheme.themeSource !== settings.settings.theme) nativeTheme.themeSource = settings.settings.theme
  }

  // What the tray says of a time limit is good for a minute.
  setInterval(() => {
    if (model.gate().ends !== undefined) refresh()
  }, 20_000).unref()

  function showWindow(): BrowserWindow {
    if (window === undefined || window.isDestroyed()) {
      window = createWindow({
        session: pageSession,
        preload: join(root, 'build', 'main', 'preload.cjs'),
        icon: join(icons, 'sluice-256.png'),
        place: settings.window,
        keepPlace: (place) => settings.keepWindow(place),
        onReady: () => undefined,
      })
      const made = window
      made.on('close', (event) => {
        if (quitting) return
        event.preventDefault()
        void closeWindow(made)
      })
      made.webContents.on('render-process-gone', (_event, { reason }) => {
        warn(`the window's process ended (${reason}); it is loaded again`)
        if (!quitting && reason !== 'clean-exit') made.webContents.reload()
      })
    } else {
      if (window.isMinimized()) window.restore()
      window.show()
      window.focus()
    }
    return window
  }

  /** Closing the window is no decision about the gate: with a tray it goes on there, without one it is quitting. */
  async function closeWindow(made: BrowserWindow): Promise<void> {
    if (await hasTrayHost()) {
      if (!made.isDestroyed()) made.hide()
    } else app.quit()
  }

  function navigate(place: BridgeEvents['navigate']): void {
    const shown = showWindow()
    if (shown.webContents.isLoading()) shown.webContents.once('did-finish-load', () => emit('navigate', place))
    else emit('navigate', place)
  }

  async function attempt(work: () => unknown): Promise<void> {
    try {
      await work()
    } catch (error) {
      const failure = toFailureReport(error)
      if (failure.code === 'cancelled') return
      const shown = showWindow()
      const advice = failureAdvice[failure.code]
      await dialog.showMessageBox(shown, { type: 'error', title: 'Sluice', message: failure.message, ...(advice === null ? {} : { detail: advice }) })
    }
  }

  async function actOnTray(action: TrayAction): Promise<void> {
    if (action.do === 'toggle') await attempt(() => model.toggleGate())
    else if (action.do === 'close') await attempt(() => model.closeGate())
    else if (action.do === 'limit') await attempt(() => model.closeAfter(action.seconds))
    else if (action.do === 'resume') await attempt(() => model.resumeGate())
    else if (action.do === 'ports') model.changeSettings({ choice: { ...settings.settings.choice, ports: action.ports } })
    else if (action.do === 'show') showWindow()
    else if (action.do === 'export') navigate('export')
    else app.quit()
  }

  async function openSession(): Promise<ReturnType<AppModel['session']>> {
    const folder = options.sessions ?? (await usualSessionsFolder())
    const { canceled, filePaths } = await dialog.showOpenDialog(showWindow(), {
      title: 'Open a session',
      buttonLabel: 'Open',
      properties: ['openDirectory', 'showHiddenFiles'],
      ...((await isThere(folder)) ? { defaultPath: folder } : {}),
    })
    const chosen = filePaths[0]
    return canceled || chosen === undefined ? null : model.openSession(chosen)
  }

  async function showFolder(): Promise<void> {
    const exported = exporter.lastPath
    if (exported !== undefined) shell.showItemInFolder(exported)
    else {
      const folder = model.session()?.folder
      if (folder !== undefined) await shell.openPath(folder)
    }
  }

  const handlers: BridgeHandlers = {
    getInfo: async () => ({
      version,
      electron: process.versions.electron,
      demo: options.demo,
      user: userInfo().username,
      interfaces: (await listInterfaces()).filter((name) => name !== 'lo'),
    }),
    getGate: () => model.gate(),
    getSession: () => model.session(),
    getSettings: () => settings.settings,
    setSettings: (part) => {
      model.changeSettings(part)
      return settings.settings
    },
    preview: (choice) => previewChoice(choice, machineFacts),
    suggestions: listSuggestions,
    openGate: async (choice) => {
      await model.openGate(choice)
      return null
    },
    changeGate: async (choice) => {
      await model.changeGate(choice)
      return null
    },
    editPorts: async (edit) => {
      await model.editPorts(edit)
      return null
    },
    closeAfter: (seconds) => {
      model.closeAfter(seconds)
      return null
    },
    resumeGate: async () => {
      await model.resumeGate()
      return null
    },
    drainGate: () => {
      model.drainGate()
      return null
    },
    closeGate: async () => {
      await model.closeGate()
      return null
    },
    listPorts,
    doctor: async () => runDoctor({ folder: options.sessions ?? (await usualSessionsFolder()) }),
    listActions: () => readActions(),
    flows: (argument) => model.ask('flows', argument),
    position: (argument) => model.ask('position', argument),
    flow: (argument) => model.ask('flow', argument),
    stream: (argument) => model.ask('stream', argument),
    body: (argument) => model.ask('body', argument),
    exportSession: async ({ format, filter }) => {
      const shown = model.session()
      if (shown === null) return null
      const { canceled, filePath } = await dialog.showSaveDialog(showWindow(), {
        title: 'Export',
        defaultPath: join(app.getPath('home'), exportName(basename(shown.folder), format)),
        filters: [{ name: { har: 'HTTP archive', pcapng: 'Packet capture', ndjson: 'One flow a line' }[format], extensions: [format] }],
        properties: ['createDirectory', 'showOverwriteConfirmation'],
      })
      if (canceled || filePath === '') return null
      return exporter.run(shown, { format, filter, path: filePath })
    },
    cancelExport: () => {
      exporter.cancel()
      return null
    },
    openSession,
    copyText: (text) => {
      clipboard.writeText(text)
      return null
    },
    showFolder: async () => {
      await showFolder()
      return null
    },
  }
  serveBridge(handlers)

  app.on('window-all-closed', () => undefined)
  app.on('activate', () => showWindow())
  app.on('second-instance', (_event, _argv, _folder, told) => {
    showWindow()
    const open = (told as { open?: unknown } | null)?.open
    if (typeof open === 'string') void attempt(() => model.openSession(open))
  })

  let asking = false
  app.on('before-quit', (event) => {
    if (quitting) return
    event.preventDefault()
    if (asking) return
    asking = true
    void leave().finally(() => (asking = false))
  })

  async function leave(): Promise<void> {
    const question = quitQuestion(model.gate(), await hasTrayHost())
    if (question !== undefined) {
      const { response } = await dialog.showMessageBox(showWindow(), {
        type: 'question',
        title: 'Quit Sluice',
        message: question.message,
        detail: question.detail,
        buttons: [...question.buttons],
        defaultId: question.buttons.length - 1,
        cancelId: question.buttons.length - 1,
        noLink: true,
      })
      const choice = question.choices[response] ?? 'stay'
      if (choice === 'stay') return
      if (choice === 'finish') {
        if (model.gate().phase === 'open') model.drainGate()
        if (await hasTrayHost()) window?.hide()
        await model.whenClosed()
      }
    }
    await leaveNow()
  }

  /** Gate first; a helper that does not answer loses us as its input's end, which makes it take everything back as well. */
  async function leaveNow(): Promise<void> {
    quitting = true
    if (model.isOpen()) await Promise.race([model.closeGate().catch(() => undefined), pause(5000)])
    exporter.cancel()
    model.dispose()
    tray.destroy()
    app.quit()
  }
  // The session ends or somebody stops us: nobody to ask any more.
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => void leaveNow())
  powerMonitor.on('shutdown', () => void leaveNow())

  refresh()
  showWindow()
  if (options.open !== undefined) {
    const folder = options.open
    await attempt(() => model.openSession(folder))
  }
}

async function usualSessionsFolder(): Promise<string> {
  const documents = app.getPath('documents')
  return documents !== homedir() && (await isThere(documents)) ? join(documents, 'Sluice') : join(homedir(), 'Sluice')
}

function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, milliseconds).unref()
  })
}

function warn(text: string): void {
  process.stderr.write(`sluice: ${text}\n`)
}
