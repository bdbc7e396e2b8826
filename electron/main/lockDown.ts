import { app, type Session } from 'electron'

import { pageOrigin } from './pagePolicy.ts'

/**
 * Shuts what a page could use to leave its place. Set on every web contents that is ever made, not on the one window that is known, so that a
 * window made by a mistake is shut too.
 */
export function lockDownContents(): void {
  app.on('web-contents-created', (_event, contents) => {
    const stay = (event: Electron.Event, url: string): void => {
      if (!url.startsWith(`${pageOrigin}/`)) event.preventDefault()
    }
    contents.on('will-navigate', (event) => stay(event, event.url))
    contents.on('will-redirect', (event) => stay(event, event.url))
    contents.on('will-frame-navigate', (event) => stay(event, event.url))
    contents.on('will-attach-webview', (event) => event.preventDefault())
    contents.setWindowOpenHandler(() => ({ action: 'deny' }))
  })
}

/** Permissions, downloads, devices, certificates, and every request that is not the page's own (or the developer tools') are refused. */
export function lockDownSession(session: Session): void {
  session.setPermissionRequestHandler((_contents, _permission, answer) => answer(false))
  session.setPermissionCheckHandler(() => false)
  session.setDevicePermissionHandler(() => false)
  session.on('will-download', (event) => event.preventDefault())
  session.setSpellCheckerEnabled(false)
  session.webRequest.onBeforeRequest((request, answer) => {
    const own = request.url.startsWith(`${pageOrigin}/`) || request.url.startsWith('devtools:') || request.url.startsWith('data:image/')
    answer({ cancel: !own })
  })
}
