import { expect, test } from '@playwright/test'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { labAddresses, makeLab, type Lab } from '../lab/makeLab.ts'
import { startDesktop, type Desktop } from '../support/e2e/desktop.ts'
import { launchApp, type RunningApp } from '../support/e2e/launchApp.ts'
import { rulesIn, startOrigin } from '../support/e2e/site.ts'
import { TrayClient } from '../support/e2e/trayClient.ts'

let desktop: Desktop
let lab: Lab
let folder: string
let running: RunningApp
let tray: TrayClient
let before: string
const server = labAddresses.ipv4.server

test.beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-e2e-'))
  desktop = await startDesktop()
  await desktop.startPanel()
  lab = await makeLab()
  await startOrigin(lab)
  before = await rulesIn(lab)
  running = await launchApp(desktop, { folder, netns: lab.paths.router })
  tray = new TrayClient(desktop.env)
  await expect.poll(() => tray.items()).toHaveLength(1)
})
test.afterAll(async () => {
  await running.stop()
  await lab.remove()
  await desktop.stop()
  rmSync(folder, { recursive: true, force: true })
})

const closed = ['Open gate on 80, 443', 'Ports', '80, 443', 'Show window', 'Export…', 'Quit']
const labels = () => tray.labels()

test('the tray opens and drains the real gate and says how it stands', async () => {
  // The item is there before it has its menu.
  await expect(async () => expect(await labels()).toEqual(closed)).toPass({ timeout: 20_000 })
  expect(await tray.property('ToolTip')).toContain('gate closed')

  await tray.click(/^Open gate on 80, 443$/)
  await expect.poll(labels, { timeout: 20_000 }).toContain('Gate: open on 80, 443 (0 flows) – drain and close')
  expect(await labels()).toContain('Close at once (0 flows)')
  expect(await tray.property('ToolTip')).toContain('gate open on 80, 443')
  expect(await rulesIn(lab)).not.toBe(before)

  await tray.click(/^In 10 minutes$/)
  await expect.poll(labels, { timeout: 20_000 }).toContain('Closes by itself in 10 minutes')
  expect(await tray.property('ToolTip')).toContain('closes in 10 minutes')
  await tray.click(/^No time limit$/)
  await expect.poll(labels, { timeout: 20_000 }).toContain('Close by itself')

  const download = lab.spawn('client', ['curl', '-sS', '-o', '/dev/null', '-w', '%{size_download}', `http://${server}/download?name=tray`])
  await expect.poll(labels, { timeout: 20_000 }).toContain('Gate: open on 80, 443 (1 flow) – drain and close')

  await tray.click(/drain and close$/)
  await expect.poll(labels, { timeout: 20_000 }).toContain('Draining on 80, 443 (1 flow still running)')
  await tray.click(/^Take flows again$/)
  await expect.poll(labels, { timeout: 20_000 }).toContain('Gate: open on 80, 443 (1 flow) – drain and close')
  await tray.click(/drain and close$/)
  await expect.poll(labels, { timeout: 20_000 }).toContain('Draining on 80, 443 (1 flow still running)')
  // New flows go direct meanwhile.
  expect((await lab.exec('client', ['curl', '-sS', `http://${server}/hello`])).stdout).toContain('198.51.100.2')
  await lab.exec('client', ['curl', '-sS', `http://${server}:8081/release?name=tray`])
  expect((await download.ended).code).toBe(0)
  await expect.poll(labels, { timeout: 20_000 }).toEqual(closed)
  await expect.poll(() => rulesIn(lab)).toBe(before)
  const [session] = readdirSync(running.sessions)
  expect(existsSync(join(running.sessions, session ?? '', 'capture-000001.pcapng'))).toBe(true)
})
