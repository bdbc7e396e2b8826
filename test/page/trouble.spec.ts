import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from '@playwright/test'

import { answerOpenDialog } from '../support/e2e/launchApp.ts'
import { openWindow, writeSession, type OpenWindow } from '../support/e2e/openWindow.ts'
import { recordedFlows } from '../support/e2e/recordedFlows.ts'

let open: OpenWindow
test.beforeAll(async () => {
  open = await openWindow(recordedFlows())
})
test.afterAll(() => open.stop())

/** Processes of the app under test whose command line says `word`. */
function processesOf(parent: number, word: string): number[] {
  const found: number[] = []
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8')
      const ppid = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
      if (ppid === parent && readFileSync(`/proc/${name}/cmdline`, 'utf8').includes(word)) found.push(Number(name))
    } catch {
      // ended meanwhile
    }
  }
  return found
}

test('a session that cannot be read is said in one line, and what was on show stays', async () => {
  const { window, running, folder } = open
  await expect(window.footer).toContainText('6 flows')
  for (const [name, prepare, says] of [
    ['absent', () => join(folder, 'absent.sluice'), /there is no session at/],
    ['file', () => { writeFileSync(join(folder, 'file.sluice'), 'x'); return join(folder, 'file.sluice') }, /is a file, not a session folder/],
    ['damaged', () => { const path = writeSession(folder, 'damaged', new Uint8Array(0)); writeFileSync(join(path, 'session.json'), '{'); return path }, /session\.json is damaged/],
    ['foreign', () => writeSession(folder, 'foreign', Buffer.from('this is no capture at all, whatever its name says, and it is long enough to be read')), /./],
    ['bare', () => { mkdirSync(join(folder, 'bare.sluice')); return join(folder, 'bare.sluice') }, /./],
  ] as const) {
    await answerOpenDialog(running.app, prepare())
    await window.page.keyboard.press('Control+o')
    const alert = window.toasts.getByRole('alert')
    await expect(alert, name).toHaveText(says)
    // What it says, and what to do about it.
    await expect(alert.locator('p'), name).toHaveCount(await alert.locator('p').count())
    expect(await alert.locator('p').count(), name).toBeGreaterThan(1)
    await alert.getByRole('button', { name: 'Dismiss' }).click()
    await expect(alert).toHaveCount(0)
    await expect(window.footer).toContainText('recorded.sluice')
    await expect(window.rows).toHaveCount(6)
  }
})

test('the window goes on when its inspector is killed, and says so when it cannot', async () => {
  const { window, running } = open
  const kill = async (): Promise<void> => {
    await expect.poll(() => processesOf(running.pid, 'inspector').length).toBeGreaterThan(0)
    for (const pid of processesOf(running.pid, 'inspector')) process.kill(pid, 'SIGKILL')
  }
  await kill()
  await window.useFilter('status >= 400')
  await expect(window.rows).toHaveCount(2)
  await window.row('GET /broken').click()
  await expect(await window.openTab('Response')).toContainText('503')
  await kill()
  const strip = window.page.getByRole('alert').filter({ hasText: 'the inspector ended twice' }).first()
  await expect(strip).toBeVisible()
  // Opening it again is the way out, as the advice says.
  await answerOpenDialog(running.app, join(open.folder, 'recorded.sluice'))
  await window.page.keyboard.press('Control+o')
  await window.useFilter('')
  await expect(window.rows).toHaveCount(6)
  await expect(strip).toHaveCount(0)
})

test('a page that crashes is loaded again with the session it showed', async () => {
  const { running } = open
  await running.app.evaluate(async ({ BrowserWindow }) => {
    const contents = BrowserWindow.getAllWindows()[0]?.webContents
    if (contents === undefined) throw new Error('there is no window')
    const loaded = new Promise<void>((resolve) => contents.once('did-finish-load', () => resolve()))
    contents.forcefullyCrashRenderer()
    await loaded
  })
  const footer = (): Promise<unknown> =>
    running.app.evaluate(({ BrowserWindow }) => BrowserWindow.getAllWindows()[0]?.webContents.executeJavaScript(`document.querySelector('main footer')?.textContent ?? ''`) as Promise<unknown>)
  await expect.poll(footer).toContain('6 flows')
})
