import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { startDesktop, type Desktop } from './desktop.ts'
import { launchApp, type RunningApp } from './launchApp.ts'
import { WindowDriver } from './windowDriver.ts'

export interface OpenWindow {
  readonly desktop: Desktop
  readonly running: RunningApp
  readonly window: WindowDriver
  readonly folder: string
  stop(): Promise<void>
}

/** Writes a session folder that holds this capture. Returns its path. */
export function writeSession(folder: string, name: string, capture: Uint8Array): string {
  const path = join(folder, `${name}.sluice`)
  mkdirSync(path, { recursive: true, mode: 0o700 })
  writeFileSync(join(path, 'session.json'), JSON.stringify({ format: 1, tool: 'sluice', version: '0.1.0', startedAt: '2025-11-25T00:00:00Z', plan: null, payload: true }))
  writeFileSync(join(path, 'capture-000001.pcapng'), capture)
  return path
}

/** The real app without a laboratory: no gate may be opened. `session`: a capture that is on show from the start. */
export async function openWindow(session?: Uint8Array): Promise<OpenWindow> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-page-'))
  const desktop = await startDesktop()
  const args = session === undefined ? [] : [writeSession(folder, 'recorded', session)]
  const running = await launchApp(desktop, { folder: join(folder, 'app'), args })
  const window = new WindowDriver(running.page)
  await window.ready()
  return {
    desktop,
    running,
    window,
    folder,
    async stop() {
      await running.stop()
      await desktop.stop()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
