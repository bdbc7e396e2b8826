import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from '@playwright/test'

import { makeHost } from '../../lab/demo/host.ts'
import { startServices, type Services } from '../../lab/demo/services.ts'
import { makeJourneys, type Journey } from '../../lab/demo/traffic.ts'
import { labAddresses, makeLab, type Lab } from '../../lab/makeLab.ts'
import { startDesktop, type Desktop } from './desktop.ts'
import { launchApp, type RunningApp } from './launchApp.ts'
import { TrayClient } from './trayClient.ts'
import { WindowDriver } from './windowDriver.ts'

/** The real app on the router of a laboratory, with the demo's services and programs. */
export interface Stage {
  readonly desktop: Desktop
  readonly lab: Lab
  readonly folder: string
  readonly running: RunningApp
  readonly window: WindowDriver
  readonly services: Services
  /** The journey of that name and scope. */
  journey(name: string, scope: Journey['scope']): Journey
  readonly tray: TrayClient
  stop(): Promise<void>
}

export async function openStage(options: { readonly panel?: boolean; readonly args?: readonly string[] } = {}): Promise<Stage> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-e2e-'))
  const desktop = await startDesktop()
  if (options.panel === true) await desktop.startPanel()
  const lab = await makeLab()
  const addresses = { ipv4: labAddresses.ipv4.server, ipv6: labAddresses.ipv6.server }
  const [client, router, server] = [makeHost(lab, 'client'), makeHost(lab, 'router'), makeHost(lab, 'server')]
  const services = await startServices({ server, folder: join(folder, 'server'), addresses })
  const journeys = makeJourneys({ client, router, server: addresses, folder, certificate: join(folder, 'server', 'cert.pem') })
  const running = await launchApp(desktop, { folder: join(folder, 'app'), netns: lab.paths.router, args: options.args ?? [] })
  const window = new WindowDriver(running.page)
  await window.ready()
  const tray = new TrayClient(desktop.env)
  if (options.panel === true) await expect.poll(() => tray.items()).toHaveLength(1)
  return {
    desktop,
    lab,
    folder,
    running,
    window,
    services,
    tray,
    journey(name, scope) {
      const found = journeys.find((one) => one.name === name && one.scope === scope)
      if (found === undefined) throw new Error(`no journey ${name}, ${scope}`)
      return found
    },
    async stop() {
      await running.stop()
      await lab.remove()
      await desktop.stop()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
