import { BrowserWindow, nativeTheme, screen, type Session } from 'electron'

import type { WindowPlace } from './settingsFile.ts'
import { pageUrl } from './pagePolicy.ts'

const smallest = { width: 900, height: 600 }
const usual = { width: 1280, height: 820 }

export interface WindowOptions {
  readonly session: Session
  readonly preload: string
  readonly icon: string
  readonly place: WindowPlace | undefined
  readonly keepPlace: (place: WindowPlace) => void
  /** Without a display manager's help a hidden start makes no sense, so the window always comes up. */
  readonly onReady: () => void
}

export function createWindow(options: WindowOptions): BrowserWindow {
  const place = visiblePlace(options.place)
  const window = new BrowserWindow({
    ...usual,
    ...place,
    minWidth: smallest.width,
    minHeight: smallest.height,
    title: 'Sluice',
    icon: options.icon,
    show: false,
    backgroundColor: nativeTheme.shouldUseDarkColors ? '#16181d' : '#ffffff',
    webPreferences: {
      session: options.session,
      preload: options.preload,
      sandbox: true,
      contextIsolation: true,
      nodeIntegration: false,
      nodeIntegrationInWorker: false,
      nodeIntegrationInSubFrames: false,
      webviewTag: false,
      webSecurity: true,
      allowRunningInsecureContent: false,
      navigateOnDragDrop: false,
      safeDialogs: true,
      spellcheck: false,
    },
  })
  if (options.place?.maximized) window.maximize()
  window.once('ready-to-show', () => {
    window.show()
    options.onReady()
  })
  const keep = (): void => {
    if (window.isDestroyed() || window.isFullScreen() || window.isMinimized()) return
    options.keepPlace({ ...window.getNormalBounds(), maximized: window.isMaximized() })
  }
  let timer: NodeJS.Timeout | undefined
  const keepSoon = (): void => {
    clearTimeout(timer)
    timer = setTimeout(keep, 500)
  }
  window.on('resize', keepSoon)
  window.on('move', keepSoon)
  window.on('closed', () => clearTimeout(timer))
  window.on('page-title-updated', (event) => event.preventDefault())
  void window.loadURL(pageUrl)
  return window
}

/** A remembered place on a screen that is gone would be a window nobody sees. */
function visiblePlace(place: WindowPlace | undefined): Partial<Electron.Rectangle> {
  if (place === undefined) return {}
  const { x, y, width, height } = place
  const seen = screen.getAllDisplays().some(({ workArea: area }) => x + width > area.x + 80 && x < area.x + area.width - 80 && y + 20 > area.y && y < area.y + area.height - 80)
  return seen ? { x, y, width, height } : { width, height }
}
