import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from '@playwright/test'

import { run } from '../support/e2e/run.ts'
import { openStage, type Stage } from '../support/e2e/stage.ts'

/** The README's pictures and every other view in both themes: `node resources/setup/screenshots.mjs [FOLDER]`. */
const folder = process.env['SLUICE_SCREENSHOTS'] ?? fileURLToPath(new URL('../../test-results/screenshots', import.meta.url))

let stage: Stage
test.beforeAll(async () => {
  mkdirSync(folder, { recursive: true })
  stage = await openStage({ panel: true, args: ['--demo'] })
})
test.afterAll(() => stage.stop())

test('every view in both themes, with real traffic', async () => {
  test.setTimeout(400_000)
  const { window, lab } = stage
  const { page } = window
  const shoot = async (name: string): Promise<void> => {
    for (const theme of ['Light', 'Dark'] as const) {
      await page.evaluate(`document.documentElement.dataset.theme = '${theme.toLowerCase()}'`)
      const path = join(folder, `${name}-${theme.toLowerCase()}.png`)
      await page.screenshot({ path, animations: 'disabled' })
      await shrink(path)
    }
  }
  await page.setViewportSize({ width: 1280, height: 800 })
  // Something that listens here and something that talks, as on a person's own machine.
  lab.spawn('router', ['/usr/bin/redis-server', '--bind', '127.0.0.1', '--port', '6379', '--save', '', '--dir', stage.folder])
  lab.spawn('router', ['socat', 'TCP-LISTEN:8080,fork,reuseaddr', 'SYSTEM:cat'])
  const talker = lab.spawn('router', ['redis-cli', '-h', '203.0.113.2'])
  await window.typePorts('80, 443, 6379, 8080')
  await expect(page.getByRole('heading', { name: 'nft -f -' }).or(page.locator('aside pre').first())).toBeVisible()
  await expect(page.getByRole('region', { name: 'Ports of this computer right now' }).getByText('redis-server').first()).toBeVisible()
  await shoot('preview')
  await talker.stop()
  for (const words of ['More choices', 'What another tool would do otherwise']) await page.getByText(words).click()
  await page.getByText('Keep what is said').scrollIntoViewIfNeeded()
  await shoot('choices')
  for (const words of ['More choices', 'What another tool would do otherwise']) await page.getByText(words).click()

  await window.go('Flows')
  await shoot('empty')
  await window.go('Doctor')
  await expect(page.getByRole('status').filter({ hasText: /gate can open|All is well|in the way/ })).toBeVisible()
  await shoot('doctor')
  await window.openGate('80, 443, 6379, 8080')
  await window.go('Doctor')
  await page.getByRole('radio', { name: 'Done as root' }).click()
  await expect(page.getByText(/the gate is open by/).first()).toBeVisible()
  await shoot('actions')
  await window.go('Flows')
  await shoot('waiting')
  await page.getByRole('button', { name: /^Time limit/ }).click()
  await shoot('time-limit')
  await page.keyboard.press('Escape')
  const journeys: [string, 'local' | 'forwarded'][] = [
    ['curl, POST of JSON', 'local'], ['redis-cli', 'local'], ['curl, TLS 1.2', 'local'], ['git clone, IPv6', 'local'], ['curl, 404', 'local'],
    ['curl, redirect followed', 'forwarded'], ['a browser loads a page', 'local'], ['curl, TLS 1.3', 'forwarded'], ['redis-cli', 'forwarded'], ['git clone', 'forwarded'],
    ['curl, two requests on one connection', 'forwarded'], ['curl, 8 MiB, IPv6', 'local'], ['curl, gzip', 'forwarded'],
  ]
  for (const [name, scope] of journeys) await stage.journey(name, scope).run()
  // A port nobody serves, and a flow that is still running.
  await lab.exec('router', ['curl', '-sS', '--max-time', '5', 'http://203.0.113.2:8081/nobody'], { reject: false })
  const slow = lab.spawn('router', ['curl', '-sS', '--limit-rate', '30k', '-o', '/dev/null', 'http://203.0.113.2/random.bin'])
  await expect(window.row('/random.bin').filter({ hasText: 'live' })).toBeVisible()
  await window.row('POST /api/orders').first().click()
  await window.openTab('Response')
  await expect(window.details.getByText('accepted')).toBeVisible()
  await shoot('window')
  for (const tab of ['Overview', 'Request', 'Stream', 'Timing', 'Process']) {
    await window.openTab(tab)
    await shoot(`tab-${tab.toLowerCase()}`)
  }
  await window.row(/git/).first().click()
  await window.openTab('Response')
  await shoot('details')
  await window.openTab('Stream')
  await window.details.getByRole('radio', { name: 'Hex' }).click()
  await shoot('stream-hex')
  await window.filter.fill('status >= 400 and')
  await shoot('filter-wrong')
  await window.filter.fill('status >= 400')
  await shoot('filter-right')
  await window.useFilter('')
  await window.row('POST /api/orders').first().click({ button: 'right' })
  await shoot('menu')
  await page.keyboard.press('Escape')
  await window.button('Export…').click()
  await shoot('export')
  await page.keyboard.press('Escape')
  await page.keyboard.press('F1')
  await expect(page.getByRole('dialog', { name: 'Keyboard' })).toBeVisible()
  await shoot('keys')
  await page.keyboard.press('Escape')

  await window.theme('Dark')
  await stage.running.app.evaluate(({ BrowserWindow }) => BrowserWindow.getAllWindows()[0]?.setPosition(80, 60))
  await shootTray(stage)
  await window.button('Drain and close').click()
  await expect(window.gate).toHaveAttribute('data-gate', 'draining')
  await shoot('draining')
  await slow.stop()
  await expect(window.gate).toHaveAttribute('data-gate', 'closed')
  await shoot('closed')
})

/** At most 256 colours and nothing but the picture: these lie in the repository. */
async function shrink(path: string): Promise<void> {
  await run('convert', [path, '-strip', '+dither', '-colors', '256', `PNG8:${path}`])
}

/** Opens the tray's menu with the mouse, as a person does, and takes the part of the screen where it is. */
async function shootTray({ desktop }: Stage): Promise<void> {
  const whole = join(folder, 'screen.png')
  const env = { ...process.env, ...desktop.env }
  await run('xdotool', ['mousemove', '1352', '15', 'click', '3'], { env })
  // The menu is a window of the panel's: wait until one is mapped.
  await expect.poll(() => run('xwininfo', ['-root', '-tree'], { env })).toMatch(/wrapper-2\.0.*\s[1-9]\d\dx[1-9]\d\d\+/)
  await desktop.screenshot(whole)
  const path = join(folder, 'tray-menu.png')
  await run('convert', [whole, '-crop', '860x420+580+0', '+repage', path])
  await shrink(path)
}
