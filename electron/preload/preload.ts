import { contextBridge, ipcRenderer } from 'electron'

import type { Bridge } from '#core/contract/bridge.ts'

// Transport and nothing else: names and arguments are checked in main (bridge.ts). The page never sees ipcRenderer or an event object.
const bridge: Bridge = {
  invoke: (name, argument) => ipcRenderer.invoke('sluice:invoke', name, argument),
  on: (name, listener) => {
    const relay = (_event: unknown, told: unknown, value: unknown): void => {
      if (told === name) listener(value as never)
    }
    ipcRenderer.on('sluice:event', relay)
    return () => {
      ipcRenderer.removeListener('sluice:event', relay)
    }
  },
}
contextBridge.exposeInMainWorld('sluice', bridge)
