import { ipcMain, type WebContents } from 'electron'

import type { BridgeEvents } from '#core/contract/bridge.ts'

import { answerCall, isOwnPage, type BridgeHandlers } from './answerCall.ts'

export function serveBridge(handlers: BridgeHandlers): void {
  ipcMain.handle('sluice:invoke', (event, name: unknown, argument: unknown) => {
    if (!isOwnPage(event.senderFrame)) throw new Error('refused')
    return answerCall(handlers, name, argument)
  })
}

export function emitTo<Name extends keyof BridgeEvents>(contents: WebContents | undefined, name: Name, value: BridgeEvents[Name]): void {
  if (contents === undefined || contents.isDestroyed()) return
  contents.send('sluice:event', name, value)
}
